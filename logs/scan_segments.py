"""Segments in a full scan: Parquet on a disk is read by DuckDB itself, all else is decoded and copied."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from logs import paths, segment_files, segments, storage
from logs.filters import Filters, is_pattern
from logs.models import LogSegment

logger = logging.getLogger(__name__)

METADATA = ("partition", "pipeline_version", "last_model")


@dataclass(frozen=True)
class Files:
    """Segments of one schema that DuckDB can read, and that schema."""

    schema: pa.Schema
    paths: tuple[str, ...]

    @property
    def source(self) -> str:
        """SQL that has their rows."""
        return f"read_parquet([{', '.join(_text(path) for path in self.paths)}])"


def there(found: Iterable[LogSegment]) -> list[LogSegment]:
    """Those whose files are. One lost file must not hide all the rows that are there.

    Raises `FileNotFoundError` for one that was let go since it was listed.
    """
    kept = []
    for segment in found:
        try:
            storage.size(segment.path)
        except FileNotFoundError:
            if not LogSegment.objects.filter(pk=segment.pk, removed_at=None).exists():
                raise
            logger.error("%s is missing, and with it %d rows of logs: restore it", segment.path, segment.rows)
            continue
        kept.append(segment)
    return kept


def apart(found: Iterable[LogSegment], filters: Filters) -> tuple[list[Files], list[LogSegment]]:
    """The segments that DuckDB can read with these filters, by schema, and the others."""
    groups: dict[str, list[LogSegment]] = {}
    for segment in found:
        groups.setdefault(segment.schema_id, []).append(segment)
    is_sql = in_sql(filters) is not None and is_on_disk()
    files: list[Files] = []
    others: list[LogSegment] = []
    for group in groups.values():
        parquet = [segment for segment in group if segment.form == segment_files.PARQUET]
        with storage.open_file(group[0].path) as file:
            schema = pq.read_schema(file) if parquet == group else None
        if schema is not None and is_sql and _is_plain(schema):
            files.append(Files(schema, tuple(storage.address(segment.path) for segment in group)))
        else:
            others += group
    return files, others


def is_on_disk() -> bool:
    """Whether DuckDB finds the files by itself."""
    return isinstance(storage.filesystem(), pafs.LocalFileSystem)


def in_sql(filters: Filters, model: str = "", sha: str = "") -> str | None:
    """The condition of filters, if SQL can say it: edges, models, versions. `model` and `sha` are SQL for a row's."""
    if filters.conditions or filters.anomalies or any(map(is_pattern, (*filters.edges, *filters.models))):
        return None
    parts = ["TRUE"]
    if filters.edges:
        parts.append(f'"metadata"."partition" IN ({_texts(filters.edges)})')
    if filters.pipeline_versions:
        parts.append(f'"metadata"."pipeline_version" IN ({_texts(map(str, filters.pipeline_versions))})')
    if filters.models:
        parts.append(f"({model} IN ({_texts(filters.models)}) OR {sha} IN ({_texts(filters.models)}))")
    return " AND ".join(parts)


def tables(
    found: Iterable[LogSegment], start: int, end: int, fields: Sequence[str], filters: Filters
) -> Iterator[pa.Table]:
    """Their rows in about a time, with the columns that the fields and filters need. Raises `FileNotFoundError`."""
    for segment in found:
        with storage.open_file(segment.path) as file:
            schema = segment_files.opened(file, segment.form).schema
        places = [paths.find(schema, name) for name in fields]
        columns: list[str] | None = None
        if in_sql(filters) is not None:
            columns = ["time", *(f"metadata.{name}" for name in METADATA)]
            columns += [".".join(place.names) for place in places if place]
        yield from segments.tables(LogSegment.objects.filter(pk=segment.pk), start, end, columns)


def _is_plain(schema: pa.Schema | pa.StructType) -> bool:
    """Whether no two names differ in case alone: to DuckDB they are the same."""
    names = [field.name.lower() for field in schema]
    return len(set(names)) == len(names) and all(_is_plain_type(field.type) for field in schema)


def _is_plain_type(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return not pa.types.is_struct(kind) or _is_plain(kind)


def _texts(texts: Iterable[str]) -> str:
    return ", ".join(_text(text) for text in texts)


def _text(text: str) -> str:
    """A text in SQL."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"
