"""Finds the values in rows of a prepared statement, column by column for all rows at once.

MySQL source documentation, "Binary Protocol Resultset Row": a zero byte, a bitmap of NULLs whose first two bits are not
used, then the values that are not NULL, in order: numbers of fixed width, all others behind a length-encoded integer
(below 251 itself; 252, 253, 254 and then 2, 3, 8 bytes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from cdcrep.columns import LIMIT, SLACK, Bytes, Mask, Positions, integers
from cdcrep.errors import DataError
from cdcrep_connectors.mysql.event_types import ColumnCode
from cdcrep_connectors.mysql.row_layout import Cells, Words

WIDTHS: Final = {
    ColumnCode.TINY: 1,
    ColumnCode.SHORT: 2,
    ColumnCode.YEAR: 2,
    ColumnCode.INT24: 4,
    ColumnCode.LONG: 4,
    ColumnCode.FLOAT: 4,
    ColumnCode.LONGLONG: 8,
    ColumnCode.DOUBLE: 8,
}
"""Bytes of values that have no length in front."""

UNUSED_BITS: Final = 2
WORD: Final = 64
_LENGTHS: Final = np.zeros(256, np.int64)
_LENGTHS[252:255] = 2, 3, 8


@dataclass(frozen=True)
class _Fixed:
    """Neighbouring columns of fixed width, whose null bits stand in one word."""

    word: int
    shift: int
    widths: tuple[int, ...]


@dataclass(frozen=True)
class _Varying:
    word: int
    shift: int


@dataclass(frozen=True)
class ResultLayout:
    """How the rows of one result look."""

    columns: int
    parts: tuple[_Fixed | _Varying, ...] = field(repr=False)

    @staticmethod
    def of(codes: Sequence[ColumnCode]) -> ResultLayout:
        """Lay out columns of these types."""
        parts: list[_Fixed | _Varying] = []
        run: list[int] = []

        def finish(bit: int) -> None:
            if run:
                first = bit - len(run)
                parts.append(_Fixed(first // WORD, first % WORD, tuple(run)))
                run.clear()

        for bit, code in enumerate(codes, UNUSED_BITS):
            if bit % WORD == 0:
                finish(bit)
            width = WIDTHS.get(code)
            if width is not None:
                run.append(width)
                continue
            finish(bit)
            parts.append(_Varying(bit // WORD, bit % WORD))
        finish(len(codes) + UNUSED_BITS)
        return ResultLayout(len(codes), tuple(parts))

    def cells(self, buffer: Bytes, start: Positions, end: Positions) -> list[Cells]:
        """Find the values of each column in the rows `buffer[start:end]`, which `Answer.rows` returned.

        Raises:
            DataError: the bytes are no such rows.
        """
        if not len(start):
            return [Cells(start, start, None) for _ in range(self.columns)]
        walk = _Walk(buffer, start + 1, int(end[-1]), self.columns)
        found = [cells for part in self.parts for cells in walk.take(part)]
        if not np.array_equal(walk.at, end):
            raise DataError("a row of the source's answer is longer or shorter than its values")
        return found


class _Walk:
    """Stands at `at` in each row."""

    def __init__(self, buffer: Bytes, at: Positions, content_end: int, columns: int) -> None:
        self._buffer = buffer
        self._end = content_end
        self._words = integers(buffer, "<u8")
        bits = columns + UNUSED_BITS
        self._nulls = [self._null_bits(at, word, bits) for word in range(-(-bits // WORD))]
        self.at = at + (bits + 7) // 8

    def take(self, part: _Fixed | _Varying) -> list[Cells]:
        """Pass over a part's columns; return where their values are."""
        nulls = self._nulls[part.word]
        if isinstance(part, _Varying):
            return [self._varying(None if nulls is None else _valid(nulls, part.shift))]
        cells = []
        for i, width in enumerate(part.widths):
            valid = None if nulls is None else _valid(nulls, part.shift + i)
            after = self.at + (width if valid is None else width * valid)
            cells.append(Cells(self.at, after, valid))
            self.at = after
        self._check()
        return cells

    def _varying(self, valid: Mask | None) -> Cells:
        self._check()
        first = self._buffer[self.at]
        length = first.astype(np.int64)
        if valid is not None:
            length *= valid
            start = self.at + valid
        else:
            start = self.at + 1
        if int(length.max()) > 250:
            self._read_lengths(start, length)
        self.at = start + length
        return Cells(start, self.at, valid)

    def _read_lengths(self, start: Positions, length: Positions) -> None:
        """Replace the first bytes of longer values' lengths by these, and pass over them."""
        rows = np.flatnonzero(length > 250)
        width = _LENGTHS[length[rows]]
        # What a broken row has behind the buffer is read elsewhere; its end cannot be the row's then.
        words = self._words[np.minimum(start[rows], len(self._words) - 1)]
        shifts = (64 - 8 * width).astype(np.uint64)
        lengths = (words << shifts) >> shifts
        if not width.all() or int(lengths.max()) >= LIMIT:
            raise DataError("a row of the source's answer has a value of an impossible length")
        start[rows] += width
        length[rows] = lengths.astype(np.int64)

    def _null_bits(self, at: Positions, word: int, bits: int) -> Words | None:
        """Read a word of the bitmap; None: nothing is NULL in it."""
        here = at + 8 * word
        if int(here.max()) + 8 > self._end + SLACK:
            raise DataError("a row of the source's answer ends in the middle")
        nulls: Words = self._words[here]
        used = bits - WORD * word
        if used < WORD:
            nulls &= np.uint64((1 << used) - 1)
        if word == 0:
            nulls &= ~np.uint64((1 << UNUSED_BITS) - 1)
        return nulls if nulls.any() else None

    def _check(self) -> None:
        if int(self.at.max()) > self._end:
            raise DataError("a row of the source's answer ends in the middle")


def _valid(nulls: Words, shift: int) -> Mask | None:
    valid: Mask = (nulls >> np.uint64(shift)) & np.uint64(1) == 0
    return None if valid.all() else valid
