"""Turns Arrow columns into text that the servers read as the same values, column by column in compiled code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from cdcrep.columns import hexadecimal
from cdcrep.errors import DataError
from cdcrep.table import INTEGERS, Column, Kind, Table
from cdcrep_connectors.mysql.column_types import BINARY_UUID, Dialect, plain_type

LARGE: Final = pa.large_string()

DATE: Final = r"^\d{4}-\d\d-\d\d$"
TIME: Final = r"^-?\d{2,3}:\d\d:\d\d(\.\d{1,6})?$"
TIMESTAMP: Final = r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?$"
INTEGER: Final = r"^-?\d+$"
NUMBER: Final = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"
"""What the servers read as we mean it: of other forms (years before Christ, infinity) they would take a part."""
UUID: Final = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
BYTES: Final = r"^\\x[0-9a-fA-F]*$"

PATTERNS: Final[Mapping[Kind, str]] = {
    **dict.fromkeys(INTEGERS, INTEGER),
    Kind.DATE: DATE,
    Kind.TIME: TIME,
    Kind.TIMESTAMP: TIMESTAMP,
    Kind.TIMESTAMPTZ: TIMESTAMP,
    Kind.FLOAT32: NUMBER,
    Kind.FLOAT64: NUMBER,
    Kind.DECIMAL: NUMBER,
    Kind.UUID: UUID,
}


class Form(Enum):
    """What the text of a column is made of."""

    NUMBER = auto()
    """Digits, which need no quotes."""
    PLAIN = auto()
    """Characters of which none has a meaning to the servers."""
    TEXT = auto()
    """Anything."""
    HEX = auto()
    """Two digits per byte of the value."""


@dataclass(frozen=True)
class ColumnText:
    """One column's values as text."""

    values: pa.Array
    """`large_string`; nulls are nulls."""
    form: Form


def is_hex(column: Column, dialect: Dialect) -> bool:
    """Tell whether `column_text` writes a column's values as digits of their bytes."""
    return column.type.kind is Kind.BYTES or plain_type(column.type, dialect) == BINARY_UUID


def column_text(table: Table, column: Column, array: pa.Array, dialect: Dialect) -> ColumnText:
    """Return a column's values as text, from the text forms of the table's source or from typed values.

    Raises:
        DataError: a value has no form in MySQL.
    """
    kind = column.type.kind
    try:
        if _is_binary(array.type):
            if kind is not Kind.BYTES:
                raise DataError(f"{table.id}: column {column.name!r}: binary values of the type {column.type.native}")
            return ColumnText(hexadecimal(array.cast(pa.large_binary())), Form.HEX)
        if pa.types.is_null(array.type):
            return ColumnText(array.cast(LARGE), Form.PLAIN)
        values = array.cast(LARGE) if is_text(array.type) else _typed(array)
        return _as_text(table, column, values, is_text(array.type), dialect)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{table.id}: column {column.name!r}: {array.type} values have no form in MySQL") from error


def is_text(type_: pa.DataType) -> bool:
    """Tell whether an Arrow column carries the source's text form."""
    return bool(
        pa.types.is_string(type_)
        or pa.types.is_large_string(type_)
        or pa.types.is_string_view(type_)
        or (pa.types.is_dictionary(type_) and pa.types.is_string(type_.value_type))
    )


def _as_text(table: Table, column: Column, values: pa.Array, from_source: bool, dialect: Dialect) -> ColumnText:
    kind = column.type.kind
    if kind is Kind.BOOL:
        return ColumnText(_boolean(table, column, values), Form.NUMBER)
    if kind is Kind.BYTES:
        _check(table, column, values, BYTES)
        return ColumnText(pc.utf8_slice_codeunits(values, 2), Form.HEX)
    if kind is Kind.TIMESTAMPTZ and from_source and table.dialect == "postgresql":
        _check(table, column, pc.utf8_slice_codeunits(values, -3), r"^\+00$")
        values = pc.utf8_slice_codeunits(values, 0, -3)
    if kind is Kind.DECIMAL and column.type.precision is None:
        return ColumnText(values, Form.TEXT)
    if (pattern := PATTERNS.get(kind)) is None:
        return ColumnText(values, Form.TEXT)
    _check(table, column, values, pattern)
    if kind is Kind.FLOAT32:
        # The servers read a DOUBLE and round it: only all of its digits are sure to give the same FLOAT, and the
        # largest one at all.
        values = values.cast(pa.float32()).cast(pa.float64()).cast(LARGE)
    if is_hex(column, dialect):
        return ColumnText(pc.replace_substring(values, "-", ""), Form.HEX)
    return ColumnText(values, Form.NUMBER if kind in INTEGERS else Form.PLAIN)


def _check(table: Table, column: Column, values: pa.Array, pattern: str) -> None:
    fits = pc.all(pc.match_substring_regex(values, pattern)).as_py()
    if fits is False:
        raise DataError(
            f"{table.id}: column {column.name!r}: MySQL has no form for a value of type {column.type.native}",
            hint=f'add "{table.id}" to exclude in [tables], or change the value at the source',
        )


def _boolean(table: Table, column: Column, values: pa.Array) -> pa.Array:
    _check(table, column, values, "^(t|f|true|false|0|1)$")
    true = pc.is_in(values, pa.array(["t", "true", "1"], LARGE))
    digits = pc.if_else(true, pa.scalar("1", LARGE), pa.scalar("0", LARGE))
    return pc.if_else(values.is_valid(), digits, pa.scalar(None, LARGE))


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
