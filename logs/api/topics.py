"""Logs as the public SDK asks for them (`pipeline.logs()`, `export_logs()`): a topic a pipeline, always as Arrow files.

Rows are flat (`in.x`). An iterator, which the caller sends back as it came, is empty at first and then `{"cursor", …}`;
`{partition: offset}` begins in some partitions, where offsets are epoch ms, as `GET` of a topic lists them.
"""

import re
from dataclasses import replace
from typing import Any, cast

from django.http import HttpResponse
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

SEARCHES = 20  # of bounded scans, so that an answer without rows is the last: the SDK stops at it
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
        """The partitions: each edge's name, and from which offset (epoch ms) up to before which it has rows."""
        pipeline, filters = _opened(request, topic)
        spans = {
            name: queries.span(pipeline, None, None, replace(filters, edges=(name,)))
            for name in queries.partitions_of(pipeline)
        }
        found = {name: {"start": span[0], "end": span[1] + 1} for name, span in spans.items() if span}
        return Response({"partitions": found})


class TopicRecords(APIView):
    content_negotiation_class = Whatever

    @extend_schema(exclude=True)
    def post(self, request: Request, topic: str) -> HttpResponse:
        """Rows of one schema; the schema's metadata key `status` says why they end and with what to go on."""
        pipeline, filters = _opened(request, topic)
        query = _asked(request, filters)
        answer = _searched(cast(User, request.user), pipeline, query)
        return HttpResponse(formats.arrow_file(answer, _status(request, query, answer)), content_type=ARROW_FILE)


def _opened(request: Request, topic: str) -> tuple[Pipeline, Filters]:
    found = _TOPIC.fullmatch(topic)
    if found is None:
        raise NotFound(f"There is no topic {topic}.")
    pipeline = catalog.pipeline_for(cast(User, request.user), int(found[1]))
    return pipeline, Filters(anomalies=(COUNT,) if found[2] else ())


def _asked(request: Request, filters: Filters) -> Query:
    params, iterator = request.query_params, request.data
    if not isinstance(iterator, dict):
        raise Invalid("The body must be an iterator: {} at first, then `next` of the answer before.")
    partitions = iterator.get("partitions", {}) if "cursor" in iterator else iterator
    if not isinstance(partitions, dict) or not all(isinstance(offset, int) for offset in partitions.values()):
        raise Invalid("An iterator has a number for each partition, or is `next` of an answer.")
    # Without times the SDK wants the newest rows, with them the oldest first; it says so only in the first case.
    order = Order.NEWEST_FIRST if params.get("order") == Order.NEWEST_FIRST.value else Order.OLDEST_FIRST
    query = queries.asked(
        replace(
            filters,
            start=_moment(params.get("time.start")),
            end=_moment(params.get("time.end")),
            edges=tuple(partitions),
        ),
        order=order,
        limit=min(_page_size(request) or MAX_LIMIT, MAX_LIMIT),
        cursor=str(iterator["cursor"]) if "cursor" in iterator else None,
        selection=Selection(
            dataset=tuple(params.getlist("dataset[]")) or ("*",),
            exclude=tuple(params.getlist("dataset.exclude[]")),
            separator=params.get("dataset.separator") or DEFAULT_SEPARATOR,
            is_flat=True,
        ),
    )
    return replace(query, start=max(filter(None, [query.start, min(partitions.values(), default=0)]), default=None))


def _searched(actor: User, pipeline: Pipeline, query: Query) -> Answer:
    """The first answer that has rows, or the last."""
    answer = queries.read(actor, pipeline.pk, query)
    for _ in range(SEARCHES):
        if len(answer.table) or answer.next is None:
            break
        answer = queries.read(actor, pipeline.pk, replace(query, cursor=answer.next))
    return answer


def _status(request: Request, query: Query, answer: Answer) -> dict[str, Any]:
    status, wanted = answer.status, _page_size(request)
    if status is Status.RECORD_LIMITED and (wanted is None or wanted > query.limit):
        status = Status.BYTE_LIMITED  # at RecordLimited the SDK has what it asked for, and stops
    if answer.next is None:
        return {"status": status.value, "next": None}
    partitions = dict.fromkeys(query.filters.edges, query.start or 0)
    return {"status": status.value, "next": {"cursor": str(answer.next), "partitions": partitions}}


def _page_size(request: Request) -> int | None:
    given = request.query_params.get("page_size")
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and int(given[:18]) > 0):
        raise Invalid("page_size must be a whole number of rows, at least 1.")
    return int(given[:18])


def _moment(text: str | None) -> Any:
    try:
        return moment(text) if text else None
    except (ValueError, OverflowError) as exc:
        raise Invalid("time.start and time.end must be ISO 8601.") from exc
