"""Says how one row image of a table is laid out, and walks many images of it side by side.

MySQL 9 source documentation, "Rows_event": an image has one null bit for each column that is present, then the values
of those that are present and not null, in order: of fixed width, or behind a little-endian length of one to four bytes.

A step of the walk takes one image of each event. It costs a handful of NumPy calls for each column of varying width and
none for the others, whose places follow from the null bits once all steps are done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from cdcrep.columns import Bytes, Mask, Positions, integers
from cdcrep.errors import DataError
from cdcrep_connectors.mysql.event_types import ColumnCode
from cdcrep_connectors.mysql.table_map import WireColumn

Words = NDArray[np.uint64]
Number = TypeVar("Number", np.int64, np.uint64)

WORD: Final = 64
MOST_IN_TABLE: Final = 8
"""Columns whose widths one lookup adds up."""

_FIXED: Final = {
    ColumnCode.TINY: 1,
    ColumnCode.SHORT: 2,
    ColumnCode.INT24: 3,
    ColumnCode.LONG: 4,
    ColumnCode.LONGLONG: 8,
    ColumnCode.FLOAT: 4,
    ColumnCode.DOUBLE: 8,
    ColumnCode.YEAR: 1,
    ColumnCode.DATE: 3,
    ColumnCode.NEWDATE: 3,
    ColumnCode.TIME: 3,
    ColumnCode.TIMESTAMP: 4,
    ColumnCode.DATETIME: 8,
}
_FRACTION_AFTER: Final = {ColumnCode.TIME2: 3, ColumnCode.TIMESTAMP2: 4, ColumnCode.DATETIME2: 5}
_DIGITS_TO_BYTES: Final = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)


def decimal_width(precision: int, scale: int) -> int:
    """Return the bytes of a DECIMAL: four for each nine digits on either side of the point, fewer for the others."""
    whole, fraction = precision - scale, scale
    return whole // 9 * 4 + _DIGITS_TO_BYTES[whole % 9] + fraction // 9 * 4 + _DIGITS_TO_BYTES[fraction % 9]


def fixed_width(column: WireColumn, digits: int | None = None) -> int | None:
    """Return the bytes of every value of a column; None: each has its own length in front.

    `digits` are those of the second's fraction of MariaDB's oldest temporal types, which TABLE_MAP does not tell.
    """
    code = column.code
    if digits and code in _HIRES_BYTES:
        return _HIRES_BYTES[code][digits]
    if code in _FIXED:
        return _FIXED[code]
    if code in _FRACTION_AFTER:
        return _FRACTION_AFTER[code] + (column.scale + 1) // 2
    if code in (ColumnCode.ENUM, ColumnCode.SET):
        return column.size
    if code is ColumnCode.BIT:
        return (column.size + 7) // 8
    if code is ColumnCode.NEWDECIMAL:
        return decimal_width(column.size, column.scale)
    return None


_HIRES_BYTES: Final = {
    ColumnCode.TIMESTAMP: (4, 5, 5, 6, 6, 7, 7),
    ColumnCode.DATETIME: (8, 6, 6, 7, 7, 7, 8),
    ColumnCode.TIME: (3, 4, 4, 5, 5, 5, 6),
}


def prefix_width(column: WireColumn) -> int | None:
    """Return the bytes of the length in front of a column's values; None: a type without values in the log."""
    if column.code in (ColumnCode.VARCHAR, ColumnCode.VARCHAR_COMPRESSED, ColumnCode.STRING):
        return 1 if column.size < 256 else 2
    if column.code in (
        ColumnCode.BLOB,
        ColumnCode.BLOB_COMPRESSED,
        ColumnCode.JSON,
        ColumnCode.GEOMETRY,
        ColumnCode.VECTOR,
    ):
        return column.size
    return None


@dataclass(frozen=True)
class _Fixed:
    """Neighbouring columns of fixed width, whose null bits stand in one word."""

    word: int
    shift: int
    widths: tuple[int, ...]
    total: int
    by_nulls: Positions
    """(2**n,) bytes that the n columns take, by their null bits."""


@dataclass(frozen=True)
class _Varying:
    word: int
    shift: int
    prefix: int


@dataclass(frozen=True)
class Cells:
    """One column's values in n rows, as slices of the buffer; empty where there is none."""

    start: Positions
    end: Positions
    valid: Mask | None
    """(n,) None: all of them are values."""


@dataclass(frozen=True)
class RowLayout:
    """How an image looks that has some of a table's columns."""

    present: tuple[int, ...]
    """Ordinals of the columns that the image has."""
    parts: tuple[_Fixed | _Varying, ...] = field(repr=False)
    null_bytes: int

    @staticmethod
    def of(columns: Sequence[WireColumn], present: Sequence[int], digits: dict[int, int] | None = None) -> RowLayout:
        """Lay out the columns with these ordinals.

        Raises:
            DataError: a column's type has no values in the log.
        """
        parts: list[_Fixed | _Varying] = []
        run: list[int] = []

        def finish(bit: int) -> None:
            if run:
                parts.append(_fixed(bit - len(run), tuple(run)))
                run.clear()

        for bit, ordinal in enumerate(present):
            column = columns[ordinal]
            if len(run) == MOST_IN_TABLE or bit % WORD == 0:
                finish(bit)
            width = fixed_width(column, (digits or {}).get(ordinal))
            if width is not None:
                run.append(width)
                continue
            finish(bit)
            prefix = prefix_width(column)
            if prefix is None:
                raise DataError(f"the source sent rows with a column of type {column.code.name}, which has no values")
            parts.append(_Varying(bit // WORD, bit % WORD, prefix))
        finish(len(present))
        return RowLayout(tuple(present), tuple(parts), (len(present) + 7) // 8)


def _fixed(first: int, widths: tuple[int, ...]) -> _Fixed:
    bits = np.arange(1 << len(widths))
    table = sum(
        (np.where(bits >> i & 1, 0, width) for i, width in enumerate(widths)), np.zeros(len(bits), np.int64)
    ).astype(np.int64)
    return _Fixed(first // WORD, first % WORD, widths, sum(widths), table)


class ImageWalk:
    """Takes images of one layout, step by step, and remembers where their values are."""

    def __init__(self, layout: RowLayout, buffer: Bytes, end: int) -> None:
        self.layout = layout
        self._buffer = buffer
        self._end = end
        self._words = integers(buffer, "<u8")
        self._lengths = {1: buffer, 2: integers(buffer, "<u2"), 3: integers(buffer, "<u4"), 4: integers(buffer, "<u4")}
        varying = sum(isinstance(part, _Varying) for part in layout.parts)
        self._begins: list[Positions] = []
        self._nulls: list[list[Words]] = [[] for _ in range((layout.null_bytes + 7) // 8)]
        self._starts: list[list[Positions]] = [[] for _ in range(varying)]
        self._ends: list[list[Positions]] = [[] for _ in range(varying)]

    def step(self, at: Positions) -> Positions:
        """Pass over one image at each position; return where they end, which may be behind their events' ends.

        Raises:
            DataError: an image leaves the buffer.
        """
        nulls, any_null = self._read_nulls(at)
        at = at + self.layout.null_bytes
        self._begins.append(at)
        varying = 0
        for part in self.layout.parts:
            if isinstance(part, _Fixed):
                if any_null[part.word]:
                    bits = (nulls[part.word] >> np.uint64(part.shift)).astype(np.int64) & (len(part.by_nulls) - 1)
                    at = at + part.by_nulls[bits]
                else:
                    at = at + part.total
                continue
            self._check(at)
            length = self._lengths[part.prefix][at].astype(np.int64)
            if part.prefix == 3:
                length &= 0xFFFFFF
            if any_null[part.word] and (is_null := (nulls[part.word] >> np.uint64(part.shift)) & np.uint64(1)).any():
                there = is_null == 0
                at = at + part.prefix * there
                length *= there
            else:
                at = at + part.prefix
            self._starts[varying].append(at)
            at = at + length
            self._ends[varying].append(at)
            varying += 1
        return at

    def _read_nulls(self, at: Positions) -> tuple[list[Words], list[bool]]:
        nulls, any_null = [], []
        for word, kept in enumerate(self._nulls):
            here = at + 8 * word
            self._check(here)
            bits = self._words[here]
            used = len(self.layout.present) - WORD * word
            if used < WORD:
                bits &= np.uint64((1 << used) - 1)
            nulls.append(bits)
            any_null.append(bool(bits.any()))
            kept.append(bits)
        return nulls, any_null

    def _check(self, at: Positions) -> None:
        if len(at) and int(at.max()) > self._end:
            raise DataError("a row of a ROWS event ends in the middle")

    def cells(self, order: Positions | None) -> dict[int, Cells]:
        """Return the values per ordinal; row i of the walk becomes row `order[i]`, or stays (None)."""
        nulls = [_place(kept, order) for kept in self._nulls]
        any_null = [bool(bits.any()) for bits in nulls]
        at = _place(self._begins, order)
        cells: dict[int, Cells] = {}
        bit = varying = 0
        for part in self.layout.parts:
            if isinstance(part, _Varying):
                start, end = _place(self._starts[varying], order), _place(self._ends[varying], order)
                valid = _valid(nulls[part.word], part.shift) if any_null[part.word] else None
                cells[self.layout.present[bit]] = Cells(start, end, valid)
                at, varying, bit = end, varying + 1, bit + 1
                continue
            for i, width in enumerate(part.widths):
                valid = _valid(nulls[part.word], part.shift + i) if any_null[part.word] else None
                end = at + (width if valid is None else width * valid)
                cells[self.layout.present[bit]] = Cells(at, end, valid)
                at, bit = end, bit + 1
        return cells


def _valid(nulls: Words, shift: int) -> Mask | None:
    valid: Mask = (nulls >> np.uint64(shift)) & np.uint64(1) == 0
    return None if valid.all() else valid


def _place(parts: list[NDArray[Number]], order: Positions | None) -> NDArray[Number]:
    """Join what the steps noted and put it into the rows' order."""
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if order is None:
        return joined
    placed = np.empty_like(joined)
    placed[order] = joined
    return placed
