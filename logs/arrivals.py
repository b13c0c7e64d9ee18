"""Writes of checked pages: one statement moves the mark of a log store and stores the page, or does neither.

SQL by hand, because building the same from objects costs several times the database's work, and this is done for every
page. Pages that arrive at the same time are not gathered for one commit: PostgreSQL lets commits share a sync itself,
and gathering them here was measured at half the pages a second.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from django.db import connection, transaction

from logs.models import LogMark, LogPage
from logs.pages import Page

_SET = "acked = %s, rows = {marks}.rows + %s, updated_at = %s, time_max = {greatest}"
_MOVE = f"UPDATE {{marks}} SET {_SET} WHERE {{owner}} = %s AND epoch = %s AND acked = %s"
# What it returns is not needed, but has SQLite undo the statement alone, not the transaction, when its disk is full.
_INSERT_ALONE = "INSERT INTO {pages} ({columns}) VALUES ({values}) RETURNING id"
_BOTH = f"WITH moved AS ({_MOVE} RETURNING id) INSERT INTO {{pages}} ({{columns}}) SELECT {{values}} FROM moved"


@dataclass(frozen=True)
class Owner:
    """Whose log store it is: an edge's, or that of a source in the center. One of the two is set."""

    edge_id: UUID | None = None
    source_id: int | None = None

    @property
    def column(self) -> str:
        return "source_id" if self.edge_id is None else "edge_id"

    @property
    def key(self) -> UUID | int | None:
        return self.source_id if self.edge_id is None else self.edge_id

    def marks(self) -> dict[str, Any]:
        """How its marks are found."""
        return {self.column: self.key}


@dataclass(frozen=True)
class Arrival:
    """A checked page and where it belongs. `begin` is the sequence of its first row."""

    owner: Owner
    partition: str
    epoch: UUID
    begin: int
    version_pk: int
    pipeline_pk: int
    page: Page
    now: datetime

    @property
    def last(self) -> int:
        return self.begin + self.page.rows - 1


def store(arrival: Arrival) -> bool:
    """Stores a page durably if its mark stands right before it; whether it did."""
    if connection.vendor == "postgresql":
        # A statement on its own is a transaction. Within one it gets a savepoint, so that its failure is not all's.
        with transaction.atomic() if connection.in_atomic_block else nullcontext(), _postgres() as database:
            both: psycopg.Cursor[Any] = psycopg.Cursor(database)
            both.execute(*_postgres_statement(arrival))
            return int(both.rowcount) == 1
    mark, page = _parameters(arrival)
    moves, inserts = _sqlite_statements(arrival.owner.column)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(moves, mark)
        is_moved = int(cursor.rowcount) == 1
        if is_moved:
            cursor.execute(inserts, page)
            cursor.fetchone()
    return is_moved


@contextmanager
def _postgres() -> Iterator[psycopg.Connection[Any]]:
    """psycopg's own connection: Django's cursor would write bodies into the SQL text, as hex."""
    connection.ensure_connection()
    with connection.wrap_database_errors:
        yield connection.connection


def _postgres_statement(arrival: Arrival) -> tuple[bytes, list[Any]]:
    mark, page = _parameters(arrival)
    return _postgres_text(arrival.owner.column), mark + page


def _parameters(arrival: Arrival) -> tuple[list[Any], list[Any]]:
    """What the mark's statement takes, and what the page's."""
    page, moment = arrival.page, _prepared(LogMark, "updated_at", arrival.now)
    owner = _prepared(LogMark, arrival.owner.column, arrival.owner.key)
    epoch = _prepared(LogMark, "epoch", arrival.epoch)
    mark = [arrival.last, page.rows, moment, page.time_max, page.time_max, owner, epoch, arrival.begin - 1]
    values = {
        "pipeline_version_id": arrival.version_pk,
        "pipeline_id": arrival.pipeline_pk,
        arrival.owner.column: owner,
        "partition": arrival.partition,
        "epoch": epoch,
        "first": arrival.begin,
        "rows": page.rows,
        "size": len(page.body),
        "time_min": page.time_min,
        "time_max": page.time_max,
        "schema_id": page.schema_id,
        "arrived_at": moment,
        "body": page.body,
    }
    return mark, [values.get(name) for name in _page_columns()]


def _prepared(model: type[LogMark], attribute: str, value: Any) -> Any:
    """A value as the database takes it."""
    return _field(model, attribute).get_db_prep_save(value, connection)


@functools.lru_cache(maxsize=16)
def _field(model: type[LogMark], attribute: str) -> Any:
    return next(field for field in model._meta.concrete_fields if field.attname == attribute)


@functools.lru_cache(maxsize=1)
def _page_columns() -> list[str]:
    return [field.attname for field in LogPage._meta.concrete_fields if not field.primary_key]


@functools.lru_cache(maxsize=2)
def _postgres_text(owner: str) -> bytes:
    fields = {field.attname: field for field in LogPage._meta.concrete_fields}
    # Typed, because a bare parameter in a SELECT is a text.
    values = [f"%{'b' if name == 'body' else 's'}::{fields[name].db_type(connection)}" for name in _page_columns()]
    return _text(_BOTH, owner, values, greatest="GREATEST({marks}.time_max, %s::bigint, %s::bigint)").encode()


@functools.lru_cache(maxsize=2)
def _sqlite_statements(owner: str) -> tuple[str, str]:
    values = ["%s"] * len(_page_columns())
    greatest = "MAX(COALESCE(time_max, %s), %s)"
    return _text(_MOVE, owner, values, greatest=greatest), _text(_INSERT_ALONE, owner, values, greatest=greatest)


def _text(template: str, owner: str, values: list[str], greatest: str) -> str:
    quote = connection.ops.quote_name
    marks = quote(LogMark._meta.db_table)
    return template.format(
        marks=marks,
        pages=quote(LogPage._meta.db_table),
        owner=quote(owner),
        columns=", ".join(quote(name) for name in _page_columns()),
        values=", ".join(values),
        greatest=greatest.format(marks=marks),
    )
