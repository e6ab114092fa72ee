"""Walks the rows of many ROWS events of one table side by side: step k takes the k-th row of every event that has one.

MySQL 9 source documentation, "Rows_event"; MariaDB documentation, "Rows_event_v1/v2":

    table id 6   flags 2   [ version 2: length of extra information 2, itself included, extra information ]
    columns packed   present: a bit per column   [ UPDATE: present in the after-image ]   rows
    row of WRITE, DELETE: image   of UPDATE: before-image, after-image
    row of PARTIAL_UPDATE: before-image, options packed, [ options 1: a bit per JSON column of the table ], after-image
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cdcrep.changes import DELETE, INSERT, UPDATE
from cdcrep.columns import Mask, Positions, integers
from cdcrep.errors import DataError
from cdcrep_connectors.mysql import event_types
from cdcrep_connectors.mysql.event_types import ColumnCode, EventType
from cdcrep_connectors.mysql.framing import HEADER, Events
from cdcrep_connectors.mysql.row_layout import WORD, Cells, ImageWalk, RowLayout, Words
from cdcrep_connectors.mysql.table_map import TableMap

FIXED: Final = HEADER + 6 + 2
PARTIAL_JSON: Final = 1

LayoutOf = Callable[[tuple[int, ...]], RowLayout]

_OPERATIONS: Final = np.zeros(256, np.uint8)
for _kinds, _operation in (
    (event_types.WRITE, INSERT),
    (event_types.UPDATE, UPDATE),
    (event_types.DELETE, DELETE),
):
    _OPERATIONS[[int(kind) for kind in _kinds]] = _operation

_HAS_EXTRA: Final = np.zeros(256, np.bool_)
_HAS_EXTRA[[int(kind) for kind in event_types.WITH_EXTRA_INFORMATION]] = True


@dataclass(frozen=True)
class WalkedRows:
    """Rows of events of one type whose images have the same columns."""

    operation: int
    order: Positions | None
    """(m,) which of the table's rows each of them is; None: all, as they come."""
    before: Mapping[int, Cells]
    """Ordinal -> (m,) values; empty for INSERT."""
    after: Mapping[int, Cells]
    """Ordinal -> (m,) values; empty for DELETE."""
    differences: Mapping[int, Mask] = field(default_factory=dict)
    """Ordinal of a JSON column -> (m,) rows whose after-image has changes instead of a document."""


@dataclass(frozen=True)
class TableRows:
    """n rows of one table in order, in one or more groups."""

    operations: NDArray[np.uint8]
    filler: Positions
    """(n,) where each row's event begins: a place for slices that are empty."""
    groups: list[WalkedRows]


def walk_rows(table: TableMap, events: Events, layout_of: LayoutOf) -> TableRows:
    """Find the values of all rows in ROWS events of one table; `layout_of` lays out images that have certain columns.

    Raises:
        DataError: the events do not fit the table, or their rows are not what their headers say.
    """
    begin, keys = _read_heads(table, events)
    walks = [_Walk(table, events, chosen, begin[chosen], layout_of) for chosen in _groups(keys)]
    counts = np.zeros(len(events), np.int64)
    for walk in walks:
        counts[walk.chosen] = walk.counts
    base = np.cumsum(counts) - counts
    groups = [walk.result(base, alone=len(walks) == 1) for walk in walks]
    operations = np.repeat(_OPERATIONS[events.types], counts)
    return TableRows(operations, np.repeat(events.start, counts), groups)


def _read_heads(table: TableMap, events: Events) -> tuple[Positions, NDArray[np.uint8]]:
    """Return where the rows begin, and what tells layouts apart: type and both bitmaps, (n, 1 + 2 * bytes)."""
    buffer, at, count = events.buffer, events.start + FIXED, len(table.columns)
    if (events.end < at + 2).any():
        raise DataError("a ROWS event of the source is too short")
    two_bytes = integers(buffer, "<u2")
    at = at + two_bytes[at].astype(np.int64) * _HAS_EXTRA[events.types]
    bitmap_bytes = (count + 7) // 8
    packed = 1 if count < 251 else 3
    updates = (_OPERATIONS[events.types] == UPDATE).astype(np.int64)
    begin = at + packed + bitmap_bytes * (1 + updates)
    if (begin > events.end).any():
        raise DataError("a ROWS event of the source is too short")
    announced = buffer[at] if count < 251 else two_bytes[at + 1]
    if (announced != count).any() or (count >= 251 and (buffer[at] != 252).any()):
        raise DataError("a ROWS event of the source does not have as many columns as its TABLE_MAP event")
    keys = np.zeros((len(at), 1 + 2 * bitmap_bytes), np.uint8)
    keys[:, 0] = events.types
    places = at[:, None] + packed + np.arange(bitmap_bytes)
    keys[:, 1 : 1 + bitmap_bytes] = buffer[places]
    with_two = np.flatnonzero(updates)
    keys[with_two, 1 + bitmap_bytes :] = buffer[places[with_two] + bitmap_bytes]
    return begin, keys


def _groups(keys: NDArray[np.uint8]) -> Iterator[Positions]:
    """Yield the events that have equal keys."""
    if (keys == keys[:1]).all():
        yield np.arange(len(keys))
        return
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    for number in range(int(group.max()) + 1):
        yield np.flatnonzero(group == number)


def _present(bitmap: NDArray[np.uint8], count: int) -> tuple[int, ...]:
    bits = np.unpackbits(bitmap, bitorder="little")[:count]
    return tuple(np.flatnonzero(bits).tolist())


class _Walk:
    """Goes through the rows of m events of one type and one layout."""

    def __init__(
        self, table: TableMap, events: Events, chosen: Positions, begin: Positions, layout_of: LayoutOf
    ) -> None:
        self.chosen = chosen
        """(m,) which of the events."""
        self.counts = np.zeros(len(chosen), np.int64)
        """(m,) rows of each."""
        self._type = int(events.types[chosen[0]])
        self._operation = int(_OPERATIONS[self._type])
        self._buffer = events.buffer
        self._steps: list[Positions] = []
        first = int(begin[0])
        size, count = (len(table.columns) + 7) // 8, len(table.columns)
        bitmaps = 2 if self._operation == UPDATE else 1
        images = [
            _present(events.buffer[first - size * (bitmaps - i) : first - size * (bitmaps - i - 1)], count)
            for i in range(bitmaps)
        ]
        last = int(events.end[-1])
        walks = [ImageWalk(layout_of(image), events.buffer, last) for image in images]
        self._before = walks[0] if self._operation != INSERT else None
        self._after = walks[-1] if self._operation != DELETE else None
        self._json = [i for i, column in enumerate(table.columns) if column.code is ColumnCode.JSON]
        self._partial: list[list[Words]] = [[] for _ in range((len(self._json) + WORD - 1) // WORD)]
        self._run(begin, events.end[chosen])

    def _run(self, at: Positions, end: Positions) -> None:
        live = np.flatnonzero(at < end)
        at, end = at[live], end[live]
        while len(live):
            self._steps.append(live)
            self.counts[live] += 1
            after = self._step(at)
            if (after > end).any():
                raise DataError("a row of a ROWS event ends in the middle")
            if (after <= at).any():
                raise DataError("a ROWS event of the source has rows without any content")
            goes_on = after < end
            if goes_on.all():
                at = after
            else:
                live, at, end = live[goes_on], after[goes_on], end[goes_on]

    def _step(self, at: Positions) -> Positions:
        if self._before is not None:
            at = self._before.step(at)
        if self._type == EventType.PARTIAL_UPDATE_ROWS:
            at = self._step_options(at)
        return at if self._after is None else self._after.step(at)

    def _step_options(self, at: Positions) -> Positions:
        """Pass over what says which JSON columns have changes instead of documents."""
        self._check(at)
        options = self._buffer[at]
        if (options > PARTIAL_JSON).any():
            raise DataError("a PARTIAL_UPDATE_ROWS event of the source has unknown options")
        at = at + 1
        partial = options == PARTIAL_JSON
        words = integers(self._buffer, "<u8")
        for word, kept in enumerate(self._partial):
            here = at + 8 * word
            self._check(here)
            kept.append(np.where(partial, words[here], np.uint64(0)))
        after: Positions = at + (len(self._json) + 7) // 8 * partial
        return after

    def _check(self, at: Positions) -> None:
        if len(at) and int(at.max()) > len(self._buffer) - WORD // 8:
            raise DataError("a row of a ROWS event ends in the middle")

    def result(self, base: Positions, *, alone: bool) -> WalkedRows:
        """Return the rows, given the number of each event's first row among those of all events."""
        if not self._steps:
            return WalkedRows(self._operation, np.empty(0, np.int64), {}, {})
        mine = base[self.chosen]
        order = np.concatenate([mine[live] + step for step, live in enumerate(self._steps)])
        # The only group comes in its final order; several are put among each other later.
        placed = None if not alone or len(self._steps) == 1 else order
        before = self._before.cells(placed) if self._before is not None else {}
        after = self._after.cells(placed) if self._after is not None else {}
        return WalkedRows(self._operation, None if alone else order, before, after, self._differences(placed))

    def _differences(self, placed: Positions | None) -> dict[int, Mask]:
        found: dict[int, Mask] = {}
        if self._type != EventType.PARTIAL_UPDATE_ROWS:
            return found
        for bit, ordinal in enumerate(self._json):
            bits = np.concatenate(self._partial[bit // WORD]) >> np.uint64(bit % WORD) & np.uint64(1)
            mask = np.empty(len(bits), np.bool_)
            mask[slice(None) if placed is None else placed] = bits != 0
            if mask.any():
                found[ordinal] = mask
        return found
