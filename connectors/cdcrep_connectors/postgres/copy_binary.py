r"""Decodes rows of COPY's binary form into typed Arrow columns, many rows and several columns with one read.

PostgreSQL manual, COPY, "Binary Format": a row is `Int16 columns { Int32 length, or -1 for null   Byten value }`.

Values travel in binary form where Arrow has the same ones: whole numbers, floats, booleans, dates, timestamps, text and
byte strings. Everything else travels as the text that its output function writes, as the stream does.

Columns of a fixed width that follow each other, and the length of the next column of another kind, stand at the same
distances in every row without a null: one copy of so many bytes per row reads them all (`_Segment`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cdcrep.columns import Bytes, Mask, Positions, bitmap, gather, gather_bytes, integers
from cdcrep.errors import DataError
from cdcrep.table import Column, ColumnType, Kind, Table
from cdcrep_connectors.postgres.copy_out import LENGTH
from cdcrep_connectors.postgres.publication import quoted

Values = NDArray[Any]

NULL: Final = -1
JSONB_VERSION: Final = 1
"""The only one so far; it stands before the text."""
EPOCH_DAYS: Final = 10_957
"""From 1970-01-01, where Arrow begins to count, to 2000-01-01, where PostgreSQL does."""
EPOCH_MICROSECONDS: Final = EPOCH_DAYS * 86_400_000_000

OUTPUT: Final = {
    Kind.DECIMAL: "numeric_out",
    Kind.TIME: "time_out",
    Kind.INTERVAL: "interval_out",
    Kind.UUID: "uuid_out",
    Kind.ARRAY: "array_out",
}
"""The functions that write the text of values for which Arrow has no type, or none with the same values."""


@dataclass(frozen=True)
class Wire:
    """How a type's values travel, and what becomes of them."""

    arrow: Any
    """The column's pyarrow.DataType."""
    number: str = ""
    """NumPy's name of a value of fixed width, big-endian; empty: as many bytes as there are."""
    finish: Callable[[Values], Values] | None = None
    """Turns numbers (in the machine's byte order) into Arrow's."""
    skipped: int = 0
    """Bytes before the text: jsonb's version."""
    output: str = ""
    """Name of the function that makes text of a value at the server; empty: it travels as it is."""

    @property
    def width(self) -> int:
        """Bytes of a value; 0: not fixed."""
        return np.dtype(self.number).itemsize if self.number else 0

    def array(self, numbers: Values, valid: Mask | None) -> pa.Array:
        """Make the column of n numbers, of which those that are not `valid`, and 0, are null."""
        native = numbers.astype(numbers.dtype.newbyteorder("="))
        finished = self.finish(native) if self.finish is not None else native
        if pa.types.is_boolean(self.arrow):
            data = np.packbits(finished, bitorder="little")
            return pa.Array.from_buffers(self.arrow, len(numbers), [bitmap(valid), pa.py_buffer(data)])
        return pa.Array.from_buffers(self.arrow, len(numbers), [bitmap(valid), pa.py_buffer(finished)])

    def select(self, column: Column) -> str:
        """Return the SQL expression to read."""
        name = quoted(column.name)
        return f"pg_catalog.textin(pg_catalog.{self.output}({name}))" if self.output else name


def _without_nan_payloads(values: Values) -> Values:
    values[np.isnan(values)] = np.nan
    return values


def _days(values: Values) -> Values:
    limits = np.iinfo(np.int32)
    shifted = values + np.int32(EPOCH_DAYS)
    shifted[values == limits.max] = limits.max
    shifted[values == limits.min] = -limits.max
    return shifted


def _microseconds(values: Values) -> Values:
    limits = np.iinfo(np.int64)
    infinite = values == limits.max
    if (values[~infinite] > limits.max - EPOCH_MICROSECONDS - 1).any():
        raise DataError("a time after the year 294,246, where 64 bits of microseconds since 1970 end")
    shifted = values + np.int64(EPOCH_MICROSECONDS)
    shifted[infinite] = limits.max
    shifted[values == limits.min] = -limits.max
    return shifted


def _truths(values: Values) -> Values:
    return np.not_equal(values, 0)


SIMPLE: Final = {
    Kind.BOOL: Wire(pa.bool_(), "u1", _truths),
    Kind.INT16: Wire(pa.int16(), ">i2"),
    Kind.INT32: Wire(pa.int32(), ">i4"),
    Kind.INT64: Wire(pa.int64(), ">i8"),
    Kind.UINT32: Wire(pa.uint32(), ">u4"),
    Kind.FLOAT32: Wire(pa.float32(), ">f4", _without_nan_payloads),
    Kind.FLOAT64: Wire(pa.float64(), ">f8", _without_nan_payloads),
    Kind.DATE: Wire(pa.date32(), ">i4", _days),
    Kind.TIMESTAMP: Wire(pa.timestamp("us"), ">i8", _microseconds),
    Kind.TIMESTAMPTZ: Wire(pa.timestamp("us", "UTC"), ">i8", _microseconds),
    Kind.BYTES: Wire(pa.binary()),
}


def wire_of(type_: ColumnType) -> Wire | None:
    """Tell how a type's values travel; None: only COPY itself knows how to write them."""
    user_type = type_.user_type
    if user_type is not None and user_type.variety == "domain" and user_type.base is not None:
        return wire_of(user_type.base)
    if type_.kind in SIMPLE:
        return SIMPLE[type_.kind]
    if type_.kind is Kind.JSON:
        # The binary form of jsonb is a version and the text.
        return Wire(pa.string(), skipped=1 if type_.native == "jsonb" else 0)
    if type_.kind is Kind.TEXT:
        # Of the type "char", bytes that are not ASCII are written as octal digits.
        return Wire(pa.string(), output="charout" if type_.native == '"char"' else "")
    if user_type is not None and user_type.variety == "enum":
        # The binary form is the label. Not enum_out, which does not take domains over an enum.
        return Wire(pa.string())
    return Wire(pa.string(), output=OUTPUT[type_.kind]) if type_.kind in OUTPUT else None


class Decoder:
    """Decodes rows of one table's columns, given how each travels."""

    def __init__(self, table: Table, wires: Sequence[Wire]) -> None:
        self._table = table
        self._names = [column.name for column in table.columns]
        self._schema = pa.schema([pa.field(n, wire.arrow) for n, wire in zip(self._names, wires, strict=True)])
        self._segments = _segments(wires)

    def batch(self, buffer: Bytes, start: Positions, end: Positions) -> pa.RecordBatch:
        """Decode n rows, whose fields stand in `buffer[start:end]`, in ascending order.

        Raises:
            DataError: the bytes are no such rows, text is not UTF-8, or a value has no place in Arrow's type.
        """
        arrays: list[pa.Array] = []
        at = start
        for segment in self._segments:
            values = segment.read(buffer, at, end)
            if values is not None:
                at = values[-1].end
            else:
                values = []
                for wire in segment.wires:
                    values.append(self._read(wire, buffer, at, end))
                    at = values[-1].end
            for wire, read in zip(segment.wires, values, strict=True):
                arrays.append(self._array(wire, buffer, read, self._names[len(arrays)]))
        if (at != end).any():
            self._refuse("a row is longer than its columns")
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _read(self, wire: Wire, buffer: Bytes, at: Positions, end: Positions) -> _Values:
        """Read one column of rows that may have nulls."""
        if (at + LENGTH > end).any():
            self._refuse("a row ends before its last column")
        length = integers(buffer, ">i4")[at].astype(np.int64)
        valid = length != NULL
        length[~valid] = 0
        start = at + LENGTH
        after = start + length
        if (length < 0).any() or (after > end).any():
            self._refuse("a row ends in the middle of a value")
        if not wire.width:
            return _Values(valid, start, after)
        if (length[valid] != wire.width).any():
            self._refuse("a value does not have the width of its type")
        numbers = np.zeros(len(at), wire.number)
        numbers[valid] = integers(buffer, wire.number)[start[valid]]
        return _Values(valid, start, after, numbers)

    def _array(self, wire: Wire, buffer: Bytes, values: _Values, name: str) -> pa.Array:
        valid = values.valid
        try:
            if values.numbers is not None:
                return wire.array(values.numbers, valid)
            start = values.start
            if wire.skipped:
                there = slice(None) if valid is None else valid
                versions = values.start[there]
                if (values.end[there] <= versions).any() or (buffer[versions] != JSONB_VERSION).any():
                    raise DataError(f"a value is not of version {JSONB_VERSION} of jsonb's binary form")
                # A null has no byte to skip.
                start = np.minimum(start + wire.skipped, values.end)
            return (gather_bytes if pa.types.is_binary(wire.arrow) else gather)(buffer, start, values.end, valid)
        except DataError as error:
            raise DataError(f"{self._table.id}, column {name!r}: {error.message}") from None

    def _refuse(self, why: str) -> NoReturn:
        raise DataError(f"{self._table.id}: what the server copies cannot be read: {why}")


@dataclass(frozen=True)
class _Values:
    """One column of n rows."""

    valid: Mask | None
    """(n,) where there is a value; None: everywhere."""
    start: Positions
    """(n,) where the values begin."""
    end: Positions
    """(n,) where they end, and the next column begins."""
    numbers: Values | None = None
    """(n,) those of fixed width."""


@dataclass(frozen=True)
class _Segment:
    """Columns of fixed width one behind the other, and up to one of another kind behind them."""

    wires: tuple[Wire, ...]
    record: np.dtype[np.void]
    """What stands in the rows without a null: lengths `l0`, `l1`, … and numbers `v0`, `v1`, …"""

    def read(self, buffer: Bytes, at: Positions, end: Positions) -> list[_Values] | None:
        """Read all columns at once; None: a null is among them, or what stands there is no row."""
        size = self.record.itemsize
        if (at + size > end).any():
            return None
        # As plain bytes: NumPy would copy a record's fields one by one.
        records = integers(buffer, f"V{size}")[at].view(self.record)
        found = []
        after = at
        for i, wire in enumerate(self.wires):
            start, length = after + LENGTH, records[f"l{i}"]
            if wire.width:
                if (length != wire.width).any():
                    return None
                after = start + wire.width
                found.append(_Values(None, start, after, records[f"v{i}"]))
            else:
                after = start + length
                if (length < 0).any() or (after > end).any():
                    return None
                found.append(_Values(None, start, after))
        return found


def _segments(wires: Sequence[Wire]) -> list[_Segment]:
    segments, begin = [], 0
    for i, wire in enumerate(wires):
        if not wire.width or i + 1 == len(wires):
            some = tuple(wires[begin : i + 1])
            fields = [
                field for n, one in enumerate(some) for field in ((f"l{n}", ">i4"), (f"v{n}", one.number)) if field[1]
            ]
            segments.append(_Segment(some, np.dtype(fields)))
            begin = i + 1
    return segments
