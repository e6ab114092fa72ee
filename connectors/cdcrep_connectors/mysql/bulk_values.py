"""Writes Arrow columns as the row lists of INSERT … VALUES, column by column in compiled code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdcrep.errors import DataError
from cdcrep.table import Column, Kind, Table

SLICE_BYTES: Final = 16 << 20
"""Rows are written in slices of about this size, so that copies of a large batch do not add up in memory."""
HEX_DIGITS: Final = np.frombuffer(b"0123456789abcdef", np.uint8)
LARGE: Final = pa.large_string()

DATE: Final = r"^\d{4}-\d\d-\d\d$"
TIME: Final = r"^-?\d{2,3}:\d\d:\d\d(\.\d{1,6})?$"
TIMESTAMP: Final = r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?$"
INTEGER: Final = r"^-?\d+$"
NUMBER: Final = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"
"""What the servers read as we mean it: of other forms (years before Christ, infinity) they would take a part."""

INTEGERS: Final = frozenset(
    {Kind.INT8, Kind.INT16, Kind.INT32, Kind.INT64, Kind.UINT8, Kind.UINT16, Kind.UINT32, Kind.UINT64}
)


def value_lists(
    table: Table, columns: Sequence[Column], values: Sequence[pa.ChunkedArray], rows: int, most_bytes: int
) -> Iterator[bytes]:
    """Yield `(…),(…)` for the rows, in pieces of at most `most_bytes`; a single row may be larger.

    `values` are those of `columns`, as the text forms of the table's source or typed.

    Raises:
        DataError: a column holds a value that MySQL has no form for.
    """
    arrays = [_one_array(column) for column in values]
    step = max(1, rows * SLICE_BYTES // max(sum(array.nbytes for array in arrays), 1))
    for start in range(0, rows, step):
        literals = [
            _literals(table, column, array.slice(start, step)) for column, array in zip(columns, arrays, strict=True)
        ]
        yield from _pieces(_joined(literals), most_bytes)


def _joined(literals: list[pa.Array]) -> pa.Array:
    row = _join(*literals, pa.scalar(",", LARGE)) if len(literals) > 1 else _or_null(literals[0])
    return _join(pa.scalar("(", LARGE), row, pa.scalar("),", LARGE), pa.scalar("", LARGE))


def _or_null(literal: pa.Array) -> pa.Array:
    return pc.fill_null(literal, "NULL")


def _join(*parts: Any) -> pa.Array:
    return pc.binary_join_element_wise(*parts, null_handling="replace", null_replacement="NULL")


def _pieces(rows: pa.Array, most_bytes: int) -> Iterator[bytes]:
    _, offset_buffer, data = rows.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[rows.offset : rows.offset + len(rows) + 1]
    content, start = memoryview(data or b""), 0
    while start < len(rows):
        end = int(np.searchsorted(offsets, offsets[start] + most_bytes, side="right")) - 1
        end = max(end, start + 1)
        # Without the last comma.
        yield bytes(content[offsets[start] : offsets[end] - 1])
        start = end


def _literals(table: Table, column: Column, array: pa.Array) -> pa.Array:
    """Return a column's values as SQL literals; nulls stay nulls."""
    kind = column.type.kind
    try:
        if _is_binary(array.type):
            if kind is not Kind.BYTES:
                raise DataError(f"{table.id}: column {column.name!r}: binary values of the type {column.type.native}")
            return _wrapped("x'", _hexadecimal(array.cast(pa.large_binary())), "'")
        if pa.types.is_null(array.type):
            return array.cast(LARGE)
        text = is_text(array.type)
        values = array.cast(LARGE) if text else _typed(array)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{table.id}: column {column.name!r}: {array.type} values have no form in MySQL") from error
    if kind is Kind.BOOL:
        return _boolean(table, column, values)
    if kind is Kind.BYTES:
        _check(table, column, values, r"^\\x[0-9a-fA-F]*$")
        return _wrapped("x'", pc.utf8_slice_codeunits(values, 2), "'")
    if kind is Kind.TIMESTAMPTZ and text and table.dialect == "postgresql":
        _check(table, column, pc.utf8_slice_codeunits(values, -3), r"^\+00$")
        values = pc.utf8_slice_codeunits(values, 0, -3)
    if kind is Kind.DECIMAL and column.type.precision is None:
        return _wrapped("'", _escaped(values), "'")
    if (pattern := PATTERNS.get(kind)) is not None:
        _check(table, column, values, pattern)
        if kind is Kind.FLOAT32:
            # The servers read a DOUBLE and round it: only all of its digits are sure to give the same FLOAT, and the
            # largest one at all.
            values = values.cast(pa.float32()).cast(pa.float64()).cast(LARGE)
        return values if kind in INTEGERS else _wrapped("'", values, "'")
    return _wrapped("'", _escaped(values), "'")


PATTERNS: Final[Mapping[Kind, str]] = {
    **dict.fromkeys(INTEGERS, INTEGER),
    Kind.DATE: DATE,
    Kind.TIME: TIME,
    Kind.TIMESTAMP: TIMESTAMP,
    Kind.TIMESTAMPTZ: TIMESTAMP,
    Kind.FLOAT32: NUMBER,
    Kind.FLOAT64: NUMBER,
    Kind.DECIMAL: NUMBER,
}


def _check(table: Table, column: Column, values: pa.Array, pattern: str) -> None:
    fits = pc.all(pc.match_substring_regex(values, pattern)).as_py()
    if fits is False:
        raise DataError(
            f"{table.id}: column {column.name!r}: MySQL has no form for a value of type {column.type.native}",
            hint="leave its table out, or change the value at the source",
        )


def _boolean(table: Table, column: Column, values: pa.Array) -> pa.Array:
    _check(table, column, values, "^(t|f|true|false|0|1)$")
    true = pc.is_in(values, pa.array(["t", "true", "1"], LARGE))
    digits = pc.if_else(true, pa.scalar("1", LARGE), pa.scalar("0", LARGE))
    return pc.if_else(values.is_valid(), digits, pa.scalar(None, LARGE))


def _wrapped(before: str, values: pa.Array, after: str) -> pa.Array:
    return pc.binary_join_element_wise(
        pa.scalar(before, LARGE), values, pa.scalar(after, LARGE), pa.scalar("", LARGE), null_handling="emit_null"
    )


def _escaped(values: pa.Array) -> pa.Array:
    r"""Escape `\` and `'`, which alone have a meaning inside quotes (MySQL manual, "String Literals")."""
    content = _content(values)
    if bool((content == ord("\\")).any()):
        values = pc.replace_substring(values, "\\", "\\\\")
    if bool((content == ord("'")).any()):
        values = pc.replace_substring(values, "'", "\\'")
    return values


def _content(values: pa.Array) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the bytes of an array's values, without what lies before and after a slice."""
    _, offsets, data = values.buffers()
    if data is None or len(values) == 0:
        return np.empty(0, np.uint8)
    ends = np.frombuffer(offsets, np.int64)[[values.offset, values.offset + len(values)]]
    return np.frombuffer(data, np.uint8)[ends[0] : ends[1]]


def _one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    return array


def is_text(type_: pa.DataType) -> bool:
    """Tell whether an Arrow column carries the source's text form."""
    return bool(
        pa.types.is_string(type_)
        or pa.types.is_large_string(type_)
        or pa.types.is_string_view(type_)
        or (pa.types.is_dictionary(type_) and pa.types.is_string(type_.value_type))
    )


def _typed(array: pa.Array) -> pa.Array:
    """Return typed values as text that the servers read as the same value."""
    for suits, convert in CONVERSIONS:
        if suits(array.type):
            return convert(array).cast(LARGE)
    raise pa.ArrowNotImplementedError(str(array.type))


CONVERSIONS: Final[Sequence[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], pa.Array]]]] = (
    (pa.types.is_boolean, lambda array: array.cast(pa.int8())),
    (pa.types.is_integer, lambda array: array),
    (pa.types.is_floating, lambda array: array),
    (pa.types.is_decimal, lambda array: array),
    (pa.types.is_date, lambda array: array.cast(pa.date32())),
    (pa.types.is_time, lambda array: array.cast(pa.time64("us"))),
    # Casting takes the zone off and leaves UTC.
    (pa.types.is_timestamp, lambda array: array.cast(pa.timestamp("us"))),
)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _hexadecimal(array: pa.Array) -> pa.Array:
    """Write byte strings as two digits per byte."""
    _, offset_buffer, data = array.buffers()
    count = len(array)
    offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + count + 1]
    content = np.frombuffer(data or b"", np.uint8)[offsets[0] : offsets[-1]]
    digits = np.empty((len(content), 2), np.uint8)
    digits[:, 0], digits[:, 1] = HEX_DIGITS[content >> 4], HEX_DIGITS[content & 15]
    valid = array.is_valid()
    ends = pa.py_buffer(np.ascontiguousarray(2 * (offsets - offsets[0])))
    bare = pa.LargeStringArray.from_buffers(count, ends, pa.py_buffer(digits))
    return pc.if_else(valid, bare, pa.scalar(None, LARGE))
