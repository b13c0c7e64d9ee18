"""Segments in a full scan: Parquet on a disk is read by DuckDB itself, all else streams through it group by group."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from logs import paths, segment_files, storage
from logs.filters import Filters, is_pattern
from logs.models import LogSegment

logger = logging.getLogger(__name__)

METADATA = ("partition", "pipeline_version", "last_model")
READ_AHEAD = 1  # groups beside the one that is looked at


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


@dataclass(frozen=True)
class Wanted:
    """The rows from `start` until before `end` (epoch ms) that filters let through, and of them these fields."""

    start: int
    end: int
    fields: tuple[str, ...]
    filters: Filters


@dataclass(frozen=True)
class Stream:
    """Segments of one schema as DuckDB reads them: again in each query, and never more than a few groups at a time.

    `failures` has what went wrong when a query could not read on.
    """

    row_schema: pa.Schema  # DuckDB would take `schema` for what it reads itself
    segments: tuple[LogSegment, ...]
    wanted: Wanted
    failures: list[OSError] = field(default_factory=list)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        shape = narrowed(self.row_schema.empty_table(), self.wanted).schema
        return pa.RecordBatchReader.from_batches(shape, self._batches()).__arrow_c_stream__(requested_schema)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            with ThreadPoolExecutor(1) as pool:  # the next group comes from the store while this one is looked at
                waiting: deque[Future[pa.Table]] = deque()
                for reader, group in self._groups():
                    waiting.append(pool.submit(self._read, reader, group))
                    if len(waiting) > READ_AHEAD:
                        yield from waiting.popleft().result().to_batches()
                while waiting:
                    yield from waiting.popleft().result().to_batches()
        except OSError as exc:
            self.failures.append(exc)
            raise

    def _groups(self) -> Iterator[tuple[segment_files.Reader, int]]:
        """Those that may hold rows that are wanted, by their times and statistics."""
        for segment in self.segments:
            # Closed with the last group that is read of it, which is after the next file is opened.
            reader = segment_files.opened(storage.open_file(segment.path), segment.form)
            for group in reader.groups:
                is_within = group.time_max >= self.wanted.start and group.time_min < self.wanted.end
                if is_within and reader.may_hold(group.number, self.wanted.filters):
                    yield reader, group.number

    def _read(self, reader: segment_files.Reader, group: int) -> pa.Table:
        table = segment_files.split(reader.read(group, self._columns()))[0]
        return narrowed(table, self.wanted)

    def _columns(self) -> list[str]:
        """The leaves that the fields and simple filters need; whole columns for filters that look at values."""
        places = [paths.find(self.row_schema, name) for name in self.wanted.fields]
        if in_sql(self.wanted.filters) is None:
            named = {place.names[0] for place in places if place}
            looked_at = self.wanted.filters.looks_at
            return [name for name in self.row_schema.names if name in {"time", "metadata", *named} or looked_at(name)]
        columns = ["time", *(f"metadata.{name}" for name in METADATA)]
        return columns + [".".join(place.names) for place in places if place]


def streams(found: Iterable[LogSegment], wanted: Wanted) -> list[Stream]:
    """One for each schema. Raises `FileNotFoundError`."""
    groups: dict[str, list[LogSegment]] = {}
    for segment in found:
        groups.setdefault(segment.schema_id, []).append(segment)
    made = []
    for group in groups.values():
        with storage.open_file(group[0].path) as file:
            schema = segment_files.opened(file, group[0].form).schema
        names = [name for name in schema.names if name not in segment_files.KEYS]
        own = pa.schema([schema.field(name) for name in names])
        made.append(Stream(own, tuple(group), wanted))
    return made


def narrowed(table: pa.Table, wanted: Wanted) -> pa.Table:
    """The rows that filters want as `time` (epoch ms), what `METADATA` names, and `c0`, `c1`… where fields are.

    DuckDB never sees the names of a row: to it `a` and `A` are the same.
    """
    if wanted.filters.is_any and len(table):
        table = table.filter(pa.array(wanted.filters.mask(table)))
    columns = {"time": table.column("time").cast(pa.int64())}
    columns |= {name: paths.Place(("metadata", name), pa.string()).array(table) for name in METADATA}
    places = (paths.find(table.schema, name) for name in wanted.fields)
    columns |= {f"c{at}": place.array(table) for at, place in enumerate(places) if place}
    return pa.table(columns)


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
