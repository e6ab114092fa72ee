r"""Writes Arrow columns as the text format of PostgreSQL's COPY, column by column in compiled code.

Format: PostgreSQL manual, COPY, "Text Format": columns end with a tab, rows with a newline, null is `\N`, and
backslash, tab, newline and carriage return in values are written as `\\`, `\t`, `\n`, `\r`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cdcrep.columns import content, hexadecimal, joined
from cdcrep.errors import DataError

ESCAPES: Final = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"))
SLICE_BYTES: Final = 32 << 20
"""Rows are written in slices of about this size, so that copies of a large batch do not add up in memory."""
LARGE_BYTES: Final = 1 << 29
"""From this size on a slice (of few rows with huge values) needs 64-bit offsets, since escaping may double it."""
PIECE_BYTES: Final = 1 << 18


def copy_text(columns: Sequence[pa.ChunkedArray], rows: int) -> Iterator[memoryview]:
    """Yield the rows in COPY's text format, in pieces of at most 256 KiB.

    A column holds text forms (Arrow `string`) or typed values, which are brought into a form that PostgreSQL reads.

    Raises:
        DataError: a column of an Arrow type that has no text form here.
    """
    if not columns:
        yield memoryview(b"\n" * rows)
        return
    texts = [text_form(column) for column in columns]
    size = sum(column.nbytes for column in texts)
    step = max(1, rows * SLICE_BYTES // max(size, 1))
    for start in range(0, rows, step):
        data = memoryview(_joined([column.slice(start, step) for column in texts]))
        for begin in range(0, len(data), PIECE_BYTES):
            yield data[begin : begin + PIECE_BYTES]


def _joined(columns: list[pa.Array]) -> pa.Buffer:
    """Return one slice of rows as one buffer."""
    large = sum(column.nbytes for column in columns) > LARGE_BYTES
    string = pa.large_string() if large else pa.string()
    columns = [_escaped(column.cast(string)) for column in columns]
    # The row's end rides on its last value: one short join instead of a pass over whole rows.
    columns[-1] = _join(columns[-1], pa.scalar("\n", string), pa.scalar("", string))
    joined = _join(*columns, pa.scalar("\t", string)) if len(columns) > 1 else columns[0]
    return joined.buffers()[2]


def _join(*parts: Any) -> pa.Array:
    return pc.binary_join_element_wise(*parts, null_handling="replace", null_replacement="\\N")


def _escaped(column: pa.Array) -> pa.Array:
    """Escape the characters that COPY gives a meaning; columns without them stay as they are."""
    bytes_ = content(column)
    suspects = []
    if bool((bytes_ == ord("\\")).any()):
        suspects.append(ESCAPES[0])
    if bool((bytes_ <= ord("\r")).any()):
        suspects += ESCAPES[1:]
    for plain, escape in suspects:
        column = pc.replace_substring(column, plain, escape)
    return column


def text_form(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as text that PostgreSQL reads as the same value."""
    kind = column.type
    array = joined(column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return array
    if _is_binary(kind):
        return _bytea(array.cast(pa.large_binary()))
    if not _has_text_form(kind):
        raise DataError(f"values of the Arrow type {kind} have no text form for PostgreSQL")
    return array.cast(pa.string())


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _has_text_form(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_date(kind)
        or pa.types.is_time(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_null(kind)
        or (pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type))
    )


def _bytea(array: pa.Array) -> pa.Array:
    r"""Write byte strings as bytea's hex form: `\x` and two digits per byte."""
    written = [pa.scalar("\\x", pa.large_string()), hexadecimal(array), pa.scalar("", pa.large_string())]
    return pc.binary_join_element_wise(*written)
