"""Segments as Delta tables, for Spark, Trino, ClickHouse, DuckDB and whoever else reads those.

Only the table's log is written, the files are the segments themselves. A table is a view that can be made again at any
time, never the truth: that is the database. There is one for each schema of a pipeline, in the folder of its segments.
"""

import json
import logging
import posixpath
from collections.abc import Sequence
from itertools import groupby
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions
from django.conf import settings
from django.utils import timezone

from logs import segment_files, storage
from logs.models import LogSegment
from logs.segment_files import PARQUET

logger = logging.getLogger(__name__)


def publish() -> int:
    """Brings all tables up to date; answers how many changed. A table that fails holds up no other."""
    found = LogSegment.objects.filter(form=PARQUET).order_by("path")
    changed = 0
    for folder, group in groupby(found.iterator(), key=lambda segment: posixpath.dirname(segment.path)):
        segments = list(group)
        try:
            changed += publish_table(folder, [segment for segment in segments if segment.removed_at is None])
        except Exception:
            logger.exception("the Delta table %s could not be brought up to date; tried again in a while", folder)
    return changed


def publish_table(folder: str, segments: Sequence[LogSegment]) -> bool:
    """Brings one table up to date in one commit; whether there was something to do. Repeated, it does nothing.

    Raises deltalake's errors, among them that for a commit that came in between.
    """
    wanted = {posixpath.basename(segment.path): segment for segment in segments}
    table = _table(folder)
    listed = _listed(table) if table else {}
    missing = [segment for name, segment in wanted.items() if name not in listed]
    gone = [name for name in listed if name not in wanted]
    if not missing and not gone:
        return False
    if table is None:
        schema = _schema(missing[0])
        if not fits(schema):
            return False
        create_table_with_add_actions(
            storage.address(folder), Schema.from_arrow(schema), list(map(_added, missing)), storage_options=_options()
        )
        return True
    now = int(timezone.now().timestamp() * 1000)
    removed = [RemoveAction(name, True, now, size=listed[name], partition_values={}) for name in gone]
    table.create_write_transaction([*map(_added, missing), *removed], "append", table.schema())
    return True


def fits(schema: pa.Schema) -> bool:
    """Whether Delta has words for all types of a schema."""
    return all(_is_known(field.type) for field in schema)


def _is_known(kind: pa.DataType) -> bool:
    children = [kind.field(at).type for at in range(kind.num_fields)]
    if children:
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        return (is_list or pa.types.is_struct(kind)) and all(map(_is_known, children))
    is_number = pa.types.is_signed_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)
    return bool(is_number or is_text or pa.types.is_boolean(kind) or pa.types.is_timestamp(kind))


def _schema(segment: LogSegment) -> pa.Schema:
    with storage.open_file(segment.path) as file:
        return segment_files.opened(file, segment.form).schema.remove_metadata()


def _table(folder: str) -> DeltaTable | None:
    try:
        return DeltaTable(storage.address(folder), storage_options=_options())
    except TableNotFoundError:
        return None


def _listed(table: DeltaTable) -> dict[str, int]:
    """The files of a table and their sizes."""
    actions = pa.table(table.get_add_actions(flatten=True))
    return dict(zip(actions.column("path").to_pylist(), actions.column("size_bytes").to_pylist(), strict=True))


def _added(segment: LogSegment) -> AddAction:
    made = int(segment.made_at.timestamp() * 1000)
    return AddAction(
        posixpath.basename(segment.path), segment.size, {}, made, True, json.dumps({"numRecords": segment.rows})
    )


def _options() -> dict[str, str]:
    """What LOGS_URL says of an object store, in the words of delta-rs; the rest is in the environment."""
    asked = parse_qs(urlsplit(settings.LOGS_URL).query) if "://" in settings.LOGS_URL else {}
    found = {}
    if "endpoint_override" in asked:
        scheme = asked.get("scheme", ["https"])[0]
        found = {"AWS_ENDPOINT_URL": f"{scheme}://{asked['endpoint_override'][0]}"}
        found["AWS_ALLOW_HTTP"] = str(scheme == "http").lower()
    if "region" in asked:
        found["AWS_REGION"] = asked["region"][0]
    return found
