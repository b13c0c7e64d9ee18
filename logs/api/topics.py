"""Logs as the public SDK asks for them (`pipeline.logs()`, `export_logs()`): a topic a pipeline, always as Arrow files.

Rows are flat (`in.x`). An iterator, which the caller sends back as it came, is empty at first and then `{"cursor", …}`.
`{partition: offset}` asks for the newest `END - offset` rows of some edges, one edge after another: offsets count rows
back from an `end` that `GET` of a topic tells, which is how the SDK's raw logs use them.
"""

import re
from dataclasses import dataclass, replace
from typing import Any, cast

import pyarrow as pa
from django.http import HttpResponse
from django.utils.translation import gettext
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from catalog import queries as catalog
from catalog.models import Pipeline, User
from common.errors import Invalid, NotFound
from logs import formats, queries
from logs.api.renderers import ARROW_FILE, Whatever
from logs.columns import DEFAULT_SEPARATOR, Selection
from logs.filters import COUNT, Filters, moment
from logs.query import MAX_LIMIT, Answer, Order, Query, Status
from logs.schemas import TIME

END = 2**40  # of every partition: rows are counted back from it
MAX_RAW = 1_000_000  # the most that the SDK's raw logs ask for
SEARCHES = 20  # of bounded scans, so that an answer without rows is the last: the SDK stops at it
NOTHING = Answer(pa.table({"time": pa.array([], TIME)}), Status.ALL, None)
_TOPIC = re.compile(r"pipeline-(\d{1,18})(-failures)?")


class TopicIn(serializers.Serializer[Any]):
    pipeline_pk_id = serializers.IntegerField()


class TopicName(APIView):
    @extend_schema(exclude=True)
    def post(self, request: Request) -> Response:
        """The name of a pipeline's topic. With `-failures` behind it, only rows with an anomaly are in it."""
        given = TopicIn(data=request.data)
        given.is_valid(raise_exception=True)
        pipeline = catalog.pipeline_for(cast(User, request.user), given.validated_data["pipeline_pk_id"])
        return Response({"topic_name": f"pipeline-{pipeline.pk}"})


class Topic(APIView):
    @extend_schema(exclude=True)
    def get(self, request: Request, topic: str) -> Response:
        """The partitions that have rows, which are the names of edges. Rows are counted from the end."""
        pipeline, filters = _opened(request, topic)
        names = [
            name
            for name in queries.partitions_of(pipeline)
            if queries.span(pipeline, None, None, replace(filters, edges=(name,)))
        ]
        return Response({"partitions": {name: {"start": 0, "end": END} for name in names}})


class TopicRecords(APIView):
    content_negotiation_class = Whatever

    @extend_schema(exclude=True)
    def post(self, request: Request, topic: str) -> HttpResponse:
        """Rows of one schema; the schema's metadata key `status` says why they end and with what to go on."""
        pipeline, filters = _opened(request, topic)
        iterator: Any = request.data
        if iterator is None:  # the `next` of the last answer: who goes on until there are no rows has them all
            return HttpResponse(formats.arrow_file(NOTHING, {"status": "All", "next": None}), content_type=ARROW_FILE)
        place = _Place.of(iterator)
        while True:
            query = _asked(request, filters, pipeline, place)
            answer = _searched(cast(User, request.user), pipeline, query)
            if len(answer.table) or not (rest := place.rest()):
                break
            place = rest
        told = _status(request, query, answer, place)
        return HttpResponse(formats.arrow_file(answer, told), content_type=ARROW_FILE)


@dataclass(frozen=True)
class _Place:
    """Where an iterator is: a cursor, and the partitions that are still to come, the first being read."""

    cursor: str | None
    partitions: dict[str, int]

    @classmethod
    def of(cls, iterator: Any) -> "_Place":
        """Raises `Invalid`."""
        if not isinstance(iterator, dict):
            raise Invalid(gettext("The body must be an iterator: {} at first, then `next` of the answer before."))
        is_own = "cursor" in iterator
        partitions = iterator.get("partitions", {}) if is_own else iterator
        if not isinstance(partitions, dict) or not all(type(offset) is int for offset in partitions.values()):
            raise Invalid(gettext("An iterator has a number for each partition, or is `next` of an answer."))
        cursor = iterator["cursor"] if is_own else None
        return cls(str(cursor) if cursor is not None else None, dict(sorted(partitions.items())))

    def rest(self) -> "_Place | None":
        """The place after the partition that is being read; None when it was the last."""
        names = list(self.partitions)[1:]
        return _Place(None, {name: self.partitions[name] for name in names}) if names else None

    def as_json(self) -> dict[str, Any]:
        return {"cursor": self.cursor, "partitions": self.partitions}


def _opened(request: Request, topic: str) -> tuple[Pipeline, Filters]:
    found = _TOPIC.fullmatch(topic)
    if found is None:
        raise NotFound(gettext("There is no topic %(topic)s.") % {"topic": topic})
    pipeline = catalog.pipeline_for(cast(User, request.user), int(found[1]))
    return pipeline, Filters(anomalies=(COUNT,) if found[2] else ())


def _asked(request: Request, filters: Filters, pipeline: Pipeline, place: _Place) -> Query:
    params, name = request.query_params, next(iter(place.partitions), None)
    # Without times the SDK wants the newest rows, with them the oldest first; it says so only in the first case.
    order = Order.NEWEST_FIRST if params.get("order") == Order.NEWEST_FIRST.value else Order.OLDEST_FIRST
    filters = replace(
        filters,
        start=_moment(params.get("time.start")),
        end=_moment(params.get("time.end")),
        edges=(name,) if name is not None else (),
    )
    query = queries.asked(
        filters,
        order=order,
        limit=min(_page_size(request) or MAX_LIMIT, MAX_LIMIT),
        cursor=place.cursor,
        selection=Selection(
            dataset=tuple(params.getlist("dataset[]")) or ("*",),
            exclude=tuple(params.getlist("dataset.exclude[]")),
            separator=params.get("dataset.separator") or DEFAULT_SEPARATOR,
            is_flat=True,
        ),
    )
    if name is None:
        return query
    begin = _nth_newest(pipeline, filters, END - place.partitions[name])
    return query if begin is None else replace(query, start=max(begin, query.start or 0))


def _nth_newest(pipeline: Pipeline, filters: Filters, count: int) -> int | None:
    """The time (epoch ms) that the newest rows begin at; None where there are not so many, or very many are wanted."""
    if not 0 < count <= MAX_RAW:
        return None
    query = queries.asked(filters, limit=MAX_RAW, selection=Selection(dataset=("time",)))
    left = count
    for batch in queries.walk(pipeline, query, count):
        left -= sum(map(len, batch.tables))
        if left <= 0:
            return int(batch.tables[0].column("time").cast(pa.int64())[-1].as_py())
    return None


def _searched(actor: User, pipeline: Pipeline, query: Query) -> Answer:
    """The first answer that has rows, or the last."""
    answer = queries.read(actor, pipeline.pk, query)
    for _ in range(SEARCHES):
        if len(answer.table) or answer.next is None:
            break
        answer = queries.read(actor, pipeline.pk, replace(query, cursor=answer.next))
    return answer


def _status(request: Request, query: Query, answer: Answer, place: _Place) -> dict[str, Any]:
    status, wanted = answer.status, _page_size(request)
    if status is Status.RECORD_LIMITED and (wanted is None or wanted > query.limit):
        status = Status.BYTE_LIMITED  # at RecordLimited the SDK has what it asked for, and stops
    if answer.next is not None:
        return {"status": status.value, "next": replace(place, cursor=str(answer.next)).as_json()}
    if rest := place.rest():
        return {"status": Status.BYTE_LIMITED.value, "next": rest.as_json()}
    return {"status": status.value, "next": None}


def _page_size(request: Request) -> int | None:
    given = request.query_params.get("page_size")
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and int(given[:18]) > 0):
        raise Invalid(gettext("page_size must be a whole number of rows, at least 1."))
    return int(given[:18])


def _moment(text: str | None) -> Any:
    try:
        return moment(text) if text else None
    except (ValueError, OverflowError) as exc:
        raise Invalid(gettext("time.start and time.end must be ISO 8601.")) from exc
