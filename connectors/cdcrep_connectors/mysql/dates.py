"""Decides what becomes of dates that no calendar has, in rows of the log and of a copy alike, and counts them.

MySQL keeps 0000-00-00, 2024-02-31 and TIMESTAMP 0, for which typed columns have no value: see `ImpossibleDates`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import structlog
from numpy.typing import NDArray

from cdcrep.columns import Bytes, Mask, Positions, padded
from cdcrep.errors import DataError
from cdcrep.table import Column, Kind, TableId
from cdcrep_connectors.mysql.native import parse_native
from cdcrep_connectors.mysql.numbers import ZERO, array
from cdcrep_connectors.mysql.temporal import Moments, Numbers
from cdcrep_connectors.mysql.types import ImpossibleDates

log = structlog.get_logger(__name__)

TYPES: Final = {
    "date": pa.date32(),
    "datetime": pa.timestamp("us"),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
DATE_LENGTH: Final = 10
TIME_LENGTH: Final = 19
"""Characters of a date with its time, without a fraction."""


@dataclass(frozen=True)
class Decoded:
    """One column's values."""

    values: pa.Array
    impossible: Mask | None = None
    """(n,) dates that became NULL; None: there are none."""


def settle(
    column: Column, values: NDArray[Any], impossible: Mask, valid: Mask | None, dates: ImpossibleDates
) -> Decoded:
    """Make a typed column of n values of which those that are `impossible` mean nothing.

    Raises:
        DataError: one is impossible, and the policy is to refuse, or the column is a key's.
    """
    type_ = TYPES[parse_native(column.type.native).name]
    if valid is not None:
        impossible = impossible & valid
    if not impossible.any():
        return Decoded(array(type_, values, valid))
    if dates is not ImpossibleDates.NULL:
        raise DataError(
            "a date that is none, such as 0000-00-00 or 2024-02-31",
            hint='choose what becomes of such dates: impossible_dates = "text" or "null" in [source]',
        )
    if not column.nullable:
        raise DataError(
            "a date that is none, such as 0000-00-00, in a key, which cannot be NULL",
            hint='carry dates as text: impossible_dates = "text" in [source], and copy the tables anew',
        )
    return Decoded(array(type_, values, ~impossible if valid is None else valid & ~impossible), impossible)


def dates_of_text(text: pa.Array, column: Column, dates: ImpossibleDates) -> Decoded:
    """Make the values of a DATE, DATETIME or TIMESTAMP column of the text that the server selects, given as `string`.

    They are those that the log's decoder makes of the same values; a column that is carried as text stays text.

    Raises:
        DataError: a text is none of a date, or a date is impossible and must not be.
    """
    if column.type.kind is Kind.VERBATIM:
        return Decoded(text)
    native = parse_native(column.type.native)
    moments, valid = _read(text, native.digits, with_time=native.name != "date")
    impossible = moments.impossible()
    values = moments.days() if native.name == "date" else moments.microseconds()
    return settle(column, values, impossible, valid, dates)


def _read(text: pa.Array, digits: int, *, with_time: bool) -> tuple[Moments, Mask | None]:
    """Take n texts of one width apart."""
    count = len(text)
    if not count:
        nothing = np.zeros(0, np.int64)
        return Moments(nothing, nothing, nothing, nothing, nothing), None
    valid = None if not text.null_count else ~text.is_null().to_numpy(zero_copy_only=False)
    _, offsets, data = text.buffers()
    edges = np.frombuffer(offsets, np.int32, count + 1, 4 * text.offset).astype(np.int64)
    width = DATE_LENGTH if not with_time else TIME_LENGTH + (digits + 1 if digits else 0)
    there = np.ones(count, np.bool_) if valid is None else valid
    if (np.diff(edges) != width)[there].any():
        raise DataError("the source selected a date in an unknown form")
    buffer = padded(memoryview(data) if data is not None else b"\0" * width)
    # A row without a value may stand behind the last byte.
    reader = _Reader(buffer, np.minimum(edges[:-1], len(buffer) - width), there)
    nothing = np.zeros(count, np.int64)
    year, month, day = reader.number(0, 4), reader.number(5, 2), reader.number(8, 2)
    if not with_time:
        return Moments(year, month, day, nothing, nothing).check(), valid
    second = reader.number(11, 2) * 3600 + reader.number(14, 2) * 60 + reader.number(17, 2)
    fraction = reader.number(20, digits) * 10 ** (6 - digits) if digits else nothing
    return Moments(year, month, day, second, fraction).check(), valid


@dataclass(frozen=True)
class _Reader:
    buffer: Bytes
    start: Positions
    there: Mask

    def number(self, at: int, digits: int) -> Numbers:
        """Read n numbers; 0 where there is no text."""
        total = np.zeros(len(self.start), np.int64)
        for place in range(at, at + digits):
            digit = (self.buffer[self.start + place].astype(np.int64) - ZERO) * self.there
            if len(digit) and (int(digit.max()) > 9 or int(digit.min()) < 0):
                raise DataError("the source selected a date in an unknown form")
            total = total * 10 + digit
        return total


class Tally:
    """Counts the dates that became NULL, per table and column; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: Counter[tuple[TableId, str]] = Counter()
        self._untaken = 0

    def add(self, found: Mapping[tuple[TableId, str], int]) -> None:
        """Count some; those of a column that had none yet are logged."""
        if not found:
            return
        with self._lock:
            new = found.keys() - self._found.keys()
            self._found.update(found)
            self._untaken += sum(found.values())
        for table, column in sorted(new):
            log.warning("dates that are none became NULL", table=str(table), column=column)

    def add_column(self, table: TableId, column: Column, decoded: Decoded) -> pa.Array:
        """Count those of one decoded column; return its values."""
        if decoded.impossible is not None:
            self.add({(table, column.name): int(decoded.impossible.sum())})
        return decoded.values

    def take(self) -> int:
        """Return how many were counted since the last call."""
        with self._lock:
            taken, self._untaken = self._untaken, 0
        return taken

    def columns(self) -> list[str]:
        """Name the columns in which there were some."""
        with self._lock:
            return [f"{table}.{column}" for table, column in sorted(self._found)]
