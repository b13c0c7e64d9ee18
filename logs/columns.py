"""Which columns of the rows a reader wants: the `dataset`, `dataset_exclude` and `dataset_separator` of inferences too.

A name is a group (`in`) or a column (`in` + separator + field); `*` is everything. `time` always comes.
"""

from dataclasses import dataclass

import pyarrow as pa

from logs.schemas import COLUMNS, TIME

DEFAULT_SEPARATOR = "."


@dataclass(frozen=True)
class Selection:
    """`is_flat`: a column a field (`in.x`) instead of a struct a group."""

    dataset: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    separator: str = DEFAULT_SEPARATOR
    is_flat: bool = False

    def apply(self, table: pa.Table) -> pa.Table:
        """The chosen columns in the order of the contract, `time` as timestamp[ms]. Columns not known are left out."""
        columns: dict[str, pa.ChunkedArray] = {"time": table.column("time").cast(TIME)}
        # Shadow models' outputs are groups of their own, `out_<model>`, which not every page has.
        groups = [name for name in table.column_names if name in COLUMNS[1:] or name.startswith("out_")]
        for group in groups:
            column = table.column(group)
            names = [field.name for field in column.type]
            wanted = [name for name in names if self._wants(group, name)]
            if self.is_flat:
                columns.update(self._flat(group, column, wanted))
            elif wanted or (not names and self._wants(group, "")):
                columns[group] = column if wanted == names else _narrowed(column, wanted)
        return pa.table(columns)

    def may_want(self, group: str) -> bool:
        """Whether anything of a group may be answered."""
        begins = f"{group}{self.separator}"
        return any(name in ("*", group) or name.startswith(begins) for name in self.dataset)

    def _wants(self, group: str, field: str) -> bool:
        """The closer name decides, and of two that are as close the wanted one: `metadata.partition` is wanted although
        all of `metadata` is excluded, but not `in.tensor` when it is excluded and all of `in` wanted.
        """
        names = ("*", group, f"{group}{self.separator}{field}")
        wanted, excluded = (
            max((rank for rank, name in enumerate(names, start=1) if name in given), default=0)
            for given in (self.dataset, self.exclude)
        )
        return wanted > 0 and wanted >= excluded

    def _flat(self, group: str, column: pa.ChunkedArray, wanted: list[str]) -> dict[str, pa.ChunkedArray]:
        flat = dict(zip((field.name for field in column.type), column.flatten(), strict=True))
        return {f"{group}{self.separator}{name}": flat[name] for name in wanted}


def _narrowed(column: pa.ChunkedArray, wanted: list[str]) -> pa.ChunkedArray:
    """The struct with some of its fields; a null struct stays null."""
    fields = [column.type.field(name) for name in wanted]
    chunks = []
    for chunk in column.chunks:
        children = dict(zip((field.name for field in chunk.type), chunk.flatten(), strict=True))
        mask = chunk.is_null() if chunk.null_count else None
        chunks.append(pa.StructArray.from_arrays([children[name] for name in wanted], fields=fields, mask=mask))
    return pa.chunked_array(chunks, type=pa.struct(fields))
