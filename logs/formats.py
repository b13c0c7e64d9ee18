"""How rows leave: Arrow IPC, or pandas-records JSON."""

import json
from typing import Any

import polars as pl
import pyarrow as pa

from logs.query import Answer

MORE = "More logs available: ask again with cursor set to next."

COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)  # what Feather readers all know


def status_text(answer: Answer) -> str:
    """Why the answer ends and where the next one begins, as ASCII JSON: `{"status", "next"}`, and while there are more
    rows the `message` that says so.
    """
    told = {"status": answer.status.value, "next": str(answer.next) if answer.next else None}
    return json.dumps(told | ({"message": MORE} if answer.next else {}))


def arrow_file(answer: Answer, status: dict[str, Any] | None = None) -> bytes:
    """An Arrow IPC file (Feather V2); `status_text`, or another status, is in the schema's metadata as `status`."""
    sink = pa.BufferOutputStream()
    told = json.dumps(status) if status else status_text(answer)
    table = answer.table.replace_schema_metadata({"status": told})
    with pa.ipc.new_file(sink, table.schema, options=COMPRESSED) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def arrow_stream(answer: Answer) -> bytes:
    """An Arrow IPC stream; `status_text` is in the schema's metadata as `status`."""
    sink = pa.BufferOutputStream()
    table = answer.table.replace_schema_metadata({"status": status_text(answer)})
    with pa.ipc.new_stream(sink, table.schema, options=COMPRESSED) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def records(table: pa.Table) -> bytes:
    """pandas-records JSON: a list of objects, `time` as epoch ms.

    Always valid JSON: what is no number (NaN, infinity) becomes null. A float has the fewest digits that mean it.
    """
    at = table.schema.get_field_index("time")
    frame = pl.DataFrame(table.set_column(at, "time", table.column(at).cast(pa.int64())))
    return frame.write_json().encode()
