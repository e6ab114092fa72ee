"""Decides what becomes of dates that no calendar has, in rows of the log and of a copy alike, and counts them.

MySQL keeps 0000-00-00, 2024-02-31 and TIMESTAMP 0, for which typed columns have no value: see `ImpossibleDates`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import structlog
from numpy.typing import NDArray

from cdcrep.columns import Mask
from cdcrep.errors import DataError
from cdcrep.table import Column, TableId
from cdcrep_connectors.mysql.native import parse_native
from cdcrep_connectors.mysql.numbers import array
from cdcrep_connectors.mysql.types import ImpossibleDates

log = structlog.get_logger(__name__)

TYPES: Final = {
    "date": pa.date32(),
    "datetime": pa.timestamp("us"),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


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


class Tally:
    """Counts the dates that became NULL, per table and column; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: Counter[tuple[TableId, str]] = Counter()
        self._copied = 0

    def add(self, found: Mapping[tuple[TableId, str], int]) -> None:
        """Count some; those of a column that had none yet are logged."""
        if not found:
            return
        with self._lock:
            new = found.keys() - self._found.keys()
            self._found.update(found)
        for table, column in sorted(new):
            log.warning("dates that are none became NULL", table=str(table), column=column)

    def add_column(self, table: TableId, column: Column, decoded: Decoded) -> pa.Array:
        """Count those of a column that was copied; return its values."""
        if decoded.impossible is not None:
            count = int(decoded.impossible.sum())
            self.add({(table, column.name): count})
            with self._lock:
                self._copied += count
        return decoded.values

    def take_copied(self) -> int:
        """Return how many were counted in copied columns since the last call."""
        with self._lock:
            taken, self._copied = self._copied, 0
        return taken

    def columns(self) -> list[str]:
        """Name the columns in which there were some."""
        with self._lock:
            return [f"{table}.{column}" for table, column in sorted(self._found)]
