"""NumPy and Arrow primitives of decoders and of what writes text, without Python per value.

A decoder keeps one array of positions with an entry per row and moves it over the rows' columns: each step reads a
number for all rows at once (`integers`), or turns all rows' slices into one Arrow column (`gather`).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cdcrep.errors import DataError

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int64]
Mask = NDArray[np.bool_]

SLACK: Final = 8
"""Bytes that a buffer must have behind its content, so that `integers` may read over the end of a short value."""

LIMIT: Final = 2**31 - 1
"""Bytes of a buffer that Arrow's 32-bit offsets reach."""

HEX_DIGITS: Final = np.frombuffer(b"0123456789abcdef", np.uint8)


def padded(content: bytes | bytearray | memoryview) -> Bytes:
    """Copy bytes into a buffer with `SLACK` behind them."""
    buffer = np.zeros(len(content) + SLACK, np.uint8)
    buffer[: len(content)] = np.frombuffer(content, np.uint8)
    return buffer


def integers(buffer: Bytes, dtype: str) -> NDArray[Any]:
    """View a buffer as the integers that begin at each of its bytes, aligned or not.

    `integers(buffer, ">u4")[positions]` reads big-endian 32-bit numbers; every position must be at most
    `len(buffer) - itemsize`, or NumPy raises IndexError (a negative one reads from the end: check before).
    """
    width = np.dtype(dtype).itemsize
    return np.ndarray(shape=(max(len(buffer) - width + 1, 0),), dtype=dtype, buffer=buffer.data, strides=(1,))


def gather(buffer: Bytes, start: Positions, end: Positions, valid: Mask | None = None) -> pa.Array:
    """Copy the slices `buffer[start:end]` into an Arrow `string` array, of which those that are not `valid` are null.

    The slices are such as `gather_bytes` asks for.

    Raises:
        DataError: a slice is not UTF-8. The message does not say where.
    """
    if len(start) == 0:
        return pa.array([], pa.string())
    _, offsets, data = gather_bytes(buffer, start, end).buffers()
    text = pa.Array.from_buffers(pa.string(), len(start), [bitmap(valid), offsets, data])
    if not is_ascii(data):
        try:
            text.validate(full=True)
        except pa.ArrowInvalid:
            # Not chained: Arrow's message may quote the value.
            raise DataError("a text value is not valid UTF-8") from None
    return text


def gather_bytes(buffer: Bytes, start: Positions, end: Positions, valid: Mask | None = None) -> pa.Array:
    """Copy the slices `buffer[start:end]` into an Arrow `binary` array, of which those that are not `valid` are null.

    `start` must ascend, `start <= end <= next start` hold, and the buffer must be shorter than 2 GiB: the caller has
    checked this. Slices that are not valid should be empty.
    """
    count = len(start)
    if count == 0:
        return pa.array([], pa.binary())
    # One binary array over the buffer itself, whose even values are the slices and whose odd values are the gaps
    # between them: `take` copies the even ones with one memcpy each. Three times as fast as an index per byte.
    edges = np.empty(2 * count, np.int32)
    edges[0::2] = start
    edges[1::2] = end
    slices = pa.Array.from_buffers(pa.binary(), 2 * count - 1, [None, pa.py_buffer(edges), pa.py_buffer(buffer)])
    taken = slices.take(_even_numbers(count))
    _, offsets, data = taken.buffers()
    return pa.Array.from_buffers(pa.binary(), count, [bitmap(valid), offsets, data])


def _even_numbers(count: int) -> pa.Array:
    """Return 0, 2, 4, ...: `count` numbers of an array that is made once."""
    global _even  # noqa: PLW0603 - a cache; threads that replace it at once make the same numbers
    if len(_even) < count:
        _even = pa.array(np.arange(0, 4 * count, 2, dtype=np.int32))
    return _even.slice(0, count)


_even = pa.array([], pa.int32())


def bitmap(valid: Mask | None) -> pa.Buffer | None:
    """Pack a mask into an Arrow validity bitmap; None where all is valid."""
    if valid is None or valid.all():
        return None
    return pa.py_buffer(np.packbits(valid, bitorder="little"))


def is_ascii(data: pa.Buffer | None) -> bool:
    """Tell whether a buffer holds no byte of 0x80 or more."""
    return data is None or data.size == 0 or int(np.frombuffer(data, np.uint8).max()) < 0x80


def joined(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Join a column's chunks, if it has any, into one array."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    return array


def content(values: pa.Array) -> Bytes:
    """Return the bytes of a `string` or `large_string` array's values, without what lies before and after a slice."""
    _, offsets, data = values.buffers()
    if data is None or len(values) == 0:
        return np.empty(0, np.uint8)
    width = np.int64 if pa.types.is_large_string(values.type) else np.int32
    ends = np.frombuffer(offsets, width)[[values.offset, values.offset + len(values)]]
    return np.frombuffer(data, np.uint8)[ends[0] : ends[1]]


def hexadecimal(values: pa.Array) -> pa.Array:
    """Write the byte strings of a `large_binary` array as `large_string`, two digits per byte."""
    _, offset_buffer, data = values.buffers()
    count = len(values)
    offsets = np.frombuffer(offset_buffer, np.int64)[values.offset : values.offset + count + 1]
    bytes_ = np.frombuffer(data or b"", np.uint8)[offsets[0] : offsets[-1]]
    digits = np.empty((len(bytes_), 2), np.uint8)
    digits[:, 0], digits[:, 1] = HEX_DIGITS[bytes_ >> 4], HEX_DIGITS[bytes_ & 15]
    ends = pa.py_buffer(np.ascontiguousarray(2 * (offsets - offsets[0])))
    bare = pa.LargeStringArray.from_buffers(count, ends, pa.py_buffer(digits))
    return pc.if_else(values.is_valid(), bare, pa.scalar(None, pa.large_string()))
