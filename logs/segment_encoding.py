"""Which columns of a segment have a dictionary: those whose values repeat.

A dictionary of values that hardly repeat holds nearly all of them, and the places in it come on top: 5.4 bytes for a
random float of four bytes, 3.7 without it, at less than half of the writer's time. Other encodings of Parquet
(splitting floats by bytes, deltas) are hardly smaller, and Spark cannot read all of them.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

# Measured: above two thirds of different values in a group every type is smaller without a dictionary, whatever the
# values are; below one fifth every type is larger.
MOST_DIFFERENT = 2 / 3
# So many values of a leaf are looked at: a list may have millions in a group.
SAMPLE = 100_000


def with_dictionary(rows: pa.Table) -> list[str]:
    """The leaves, by the paths that Parquet has for them, that should have a dictionary if all rows are like these."""
    columns = zip(rows.column_names, rows.columns, strict=True)
    leaves = [leaf for name, column in columns for chunk in column.chunks for leaf in _leaves(name, chunk)]
    return sorted({path for path, values in leaves if _is_repeating(values)})


def _leaves(path: str, values: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    if pa.types.is_struct(values.type):
        for field, child in zip(values.type, values.flatten(), strict=True):
            yield from _leaves(f"{path}.{field.name}", child)
    elif isinstance(values, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
        yield from _leaves(f"{path}.list.element", values.flatten())
    else:
        yield path, values


def _is_repeating(values: pa.Array) -> bool:
    present = values.slice(0, SAMPLE).drop_null()
    return _different(present) <= MOST_DIFFERENT * len(present)


def _different(values: pa.Array) -> int:
    """How many different values there are; of numbers by their bits, in a tenth of the time that hashing takes."""
    if not (pa.types.is_primitive(values.type) and values.type.bit_width >= 8 and len(values)):
        return len(values.unique())
    bits = values.to_numpy(zero_copy_only=False)
    in_order = np.sort(bits.view(f"u{bits.itemsize}"))
    return 1 + int(np.count_nonzero(in_order[1:] != in_order[:-1]))
