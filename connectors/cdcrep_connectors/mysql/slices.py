"""Turns slices of a buffer into Arrow columns of padded bytes, or of one value each made by a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cdcrep.columns import Bytes, Mask, Positions, bitmap
from cdcrep.errors import DataError

PIECE: Final = 1 << 20
"""Bytes that are gathered by an index of eight bytes each at a time."""
MOST_MADE: Final = 1 << 29
"""Bytes, or characters, that compressed values may grow to together."""


def gather_padded(buffer: Bytes, start: Positions, end: Positions, valid: Mask | None, width: int) -> pa.Array:
    """Copy slices into an Arrow `binary` array and fill each up to its width with zero bytes, as BINARY(n) has them.

    Raises:
        DataError: a slice is longer.
    """
    length = end - start
    if len(length) and int(length.max()) > width:
        raise DataError("a BINARY value is longer than its column")
    content = np.empty((len(start), width), np.uint8)
    columns = np.arange(width)
    step = max(PIECE // max(width, 1), 1)
    for first in range(0, len(start), step):
        part = slice(first, first + step)
        # Behind short values other content is read, at most to the buffer's end, and then masked.
        index = np.minimum(start[part, None] + columns, len(buffer) - 1)
        content[part] = buffer[index] * (columns < length[part, None])
    offsets = (np.arange(len(start) + 1, dtype=np.int64) * width).astype(np.int32)
    return pa.Array.from_buffers(pa.binary(), len(start), [bitmap(valid), pa.py_buffer(offsets), pa.py_buffer(content)])


def gather_each(
    buffer: Bytes,
    start: Positions,
    end: Positions,
    valid: Mask | None,
    make: Callable[[bytes], str | bytes],
    type_: pa.DataType,
) -> pa.Array:
    """Make each value by a function: Python per value, for the few types that leave no choice.

    Raises:
        DataError: what the function raises; its text is not Unicode; or all of it is larger than `MOST_MADE`.
    """
    values: list[str | bytes | None] = []
    size = 0
    for content in _each(buffer, start, end, valid):
        value = None if content is None else make(content)
        values.append(value)
        size += len(value or b"")
        if size > MOST_MADE:
            raise DataError(f"values become more than {MOST_MADE >> 20} MiB at once")
    try:
        return pa.array(values, type_)
    except UnicodeEncodeError:
        raise DataError("a text value holds half of a surrogate pair") from None


def from_fixed(values: NDArray[np.uint8], valid: Mask | None) -> pa.Array:
    """Make an Arrow `string` array of the rows of (n, width) ASCII characters."""
    count, width = values.shape
    offsets = (np.arange(count + 1, dtype=np.int64) * width).astype(np.int32)
    return pa.Array.from_buffers(
        pa.string(), count, [bitmap(valid), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(values))]
    )


def _each(buffer: Bytes, start: Positions, end: Positions, valid: Mask | None) -> Iterator[bytes | None]:
    content = memoryview(buffer.data)
    there = [True] * len(start) if valid is None else valid.tolist()
    for begin, stop, is_there in zip(start.tolist(), end.tolist(), there, strict=True):
        yield bytes(content[begin:stop]) if is_there else None
