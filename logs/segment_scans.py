"""Segments in full scans: DuckDB reads their Parquet by itself, only the columns and groups that it needs.

What it cannot be asked in its own words (conditions on values, patterns), or would misread (names that differ in their
case alone), goes through Arrow, a group of rows at a time.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.fs as pafs
from django.db.models import QuerySet

from catalog.models import Pipeline
from logs import segment_files, storage
from logs.filters import Filters, is_pattern
from logs.models import LogSegment
from logs.segment_files import KEYS, PARQUET


def of(pipeline: Pipeline, start: int, end: int) -> QuerySet[LogSegment]:
    """The segments that may hold rows from `start` until before `end` (epoch ms)."""
    found = LogSegment.objects.filter(pipeline=pipeline, removed_at=None, time_max__gte=start, time_min__lt=end)
    return found.order_by("schema_id", "pk")


def can_be_selected(segment: LogSegment, schema: pa.Schema, filters: Filters) -> bool:
    """Whether DuckDB may read the file of a segment with rows of this schema."""
    asks_more = filters.models or filters.anomalies or filters.conditions or any(map(is_pattern, filters.edges))
    is_here = isinstance(storage.filesystem(), pafs.LocalFileSystem)
    return is_here and segment.form == PARQUET and not asks_more and _is_plain(list(schema))


def schema_of(segment: LogSegment) -> pa.Schema:
    """The schema of a segment's rows. Raises `FileNotFoundError`."""
    with storage.open_file(segment.path) as file:
        schema = segment_files.opened(file, segment.form).schema
    kept = [field for field in schema if field.name not in KEYS]
    return pa.schema(kept)


def selected(segments: Sequence[LogSegment], schema: pa.Schema, filters: Filters) -> str:
    """SQL for the rows of segments of one schema, as far as filters can be said: to be put behind FROM."""
    files = ", ".join(_text(storage.address(segment.path)) for segment in segments)
    conditions = []
    if filters.edges:
        conditions.append(f"metadata.partition IN ({', '.join(map(_text, filters.edges))})")
    if filters.pipeline_versions:
        versions = ", ".join(_text(str(version)) for version in filters.pipeline_versions)
        conditions.append(f"metadata.pipeline_version IN ({versions})")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    time = "epoch_ms(time)" if pa.types.is_timestamp(schema.field("time").type) else "time"
    return f"(SELECT * REPLACE ({time} AS time) FROM read_parquet([{files}]){where})"


def tables(segments: Sequence[LogSegment], start: int, end: int) -> Iterator[pa.Table]:
    """The groups that may hold rows from `start` until before `end`. Raises `FileNotFoundError`."""
    for segment in segments:
        with storage.open_file(segment.path) as file:
            reader = segment_files.opened(file, segment.form)
            for group in reader.groups:
                if group.time_max >= start and group.time_min < end:
                    yield segment_files.split(reader.read(group.number))[0]


def _is_plain(fields: Sequence[pa.Field]) -> bool:
    """Whether no two names next to each other are the same to DuckDB, at any depth."""
    names = [field.name.lower() for field in fields]
    children = [[field.type.field(at) for at in range(field.type.num_fields)] for field in fields]
    return len(set(names)) == len(names) and all(map(_is_plain, children))


def _text(value: str) -> str:
    escaped = value.replace("'", "''")
    return f"'{escaped}'"
