"""Decodes a binary log: events in one buffer to the changes of each table. No I/O.

The events come from `framing` and `expansion`; `table_map` and `rows` have the layouts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cdcrep.changes import Changes
from cdcrep.columns import Positions, integers
from cdcrep.errors import DataError
from cdcrep.table import Table, TableId
from cdcrep_connectors.mysql import event_types
from cdcrep_connectors.mysql.event_types import EventType
from cdcrep_connectors.mysql.framing import HEADER, Events
from cdcrep_connectors.mysql.rows import RowShape, decode_rows
from cdcrep_connectors.mysql.table_map import TableMap, read_table_map
from cdcrep_connectors.mysql.types import ImpossibleDates

TABLE_NUMBER: Final = np.uint64((1 << 48) - 1)
MOST_MAPS: Final = 10_000
"""TABLE_MAP events that are remembered by their bytes; then all are forgotten and read anew."""

_ROWS: Final = np.zeros(256, np.bool_)
_ROWS[[int(kind) for kind in event_types.ROWS]] = True


@dataclass(frozen=True)
class DecodedEvents:
    """What ROWS events did to tables."""

    changes: tuple[Changes, ...]
    """One per table and shape, in the order of their first event."""
    impossible_dates: Counter[tuple[TableId, str]]
    """How many became NULL, per table and column."""


@dataclass
class _Run:
    """Events of one table in one shape that become one `Changes`."""

    shape: RowShape
    events: Positions


class Decoder:
    """Decodes the events of one stream.

    `shape` makes the table of a TABLE_MAP, or None for tables that are not followed; it is called once for each that
    differs from those before.
    """

    def __init__(
        self,
        shape: Callable[[TableMap], Table | None],
        *,
        mariadb: bool,
        dates: ImpossibleDates = ImpossibleDates.REFUSE,
    ) -> None:
        self._make_table = shape
        self._mariadb = mariadb
        self._dates = dates
        self._maps: dict[bytes, int] = {}
        """Content of a TABLE_MAP -> index in `_shapes`."""
        self._shapes: list[RowShape | None] = [None]
        """The first stands for all tables that are not followed."""
        self._known: dict[RowShape, int] = {}
        """Where each shape stands in `_shapes`: a table that only got another number goes on as the same."""
        self._current: dict[int, int] = {}
        """Table number -> index in `_shapes`, as of the last event."""
        self._without: frozenset[TableId] = frozenset()

    def decode(self, events: Events, without: Collection[TableId] = ()) -> DecodedEvents:
        """Decode the ROWS events among expanded ones; all others but TABLE_MAP are left to the caller.

        Rows of the tables in `without` are not looked at, nor what shape they have: they may be why a table was copied
        anew.

        Raises:
            DataError: the bytes are not what the format says, or a row cannot be carried.
        """
        rows = np.flatnonzero(_ROWS[events.types])
        self._without = frozenset(without)
        runs = self._runs(self._by_map(events, rows))
        decoded = []
        impossible: Counter[tuple[TableId, str]] = Counter()
        for run in sorted(runs, key=lambda run: int(run.events[0])):
            chosen = run.events
            mine = events
            if len(chosen) < len(events):
                mine = Events(events.buffer, events.start[chosen], events.end[chosen], events.types[chosen])
            result = decode_rows(run.shape, mine)
            decoded.append(result.changes)
            for column, count in result.impossible.items():
                impossible[run.shape.table.id, column] += count
        return DecodedEvents(tuple(changes for changes in decoded if len(changes)), impossible)

    def _runs(self, found: list[tuple[int, Positions]]) -> list[_Run]:
        """Join the events of each table in one shape; where a table has several, they keep their order."""
        by_table: dict[TableId, list[tuple[int, Positions]]] = {}
        for index, part in found:
            shape = self._shapes[index]
            if shape is not None and shape.table.id not in self._without:
                by_table.setdefault(shape.table.id, []).append((index, part))
        runs = []
        for parts in by_table.values():
            rows = np.concatenate([part for _, part in parts])
            order = np.argsort(rows, kind="stable")
            indexes = np.repeat([index for index, _ in parts], [len(part) for _, part in parts])[order]
            edges = [0, *(np.flatnonzero(np.diff(indexes)) + 1).tolist(), len(rows)]
            for first, after in pairwise(edges):
                run_shape = self._shapes[int(indexes[first])]
                assert run_shape is not None
                runs.append(_Run(run_shape, rows[order[first:after]]))
        return runs

    def forget(self) -> None:
        """Forget which table has which number: at a FORMAT_DESCRIPTION and in a new file the server may start anew."""
        self._current.clear()

    def _by_map(self, events: Events, rows: Positions) -> list[tuple[int, Positions]]:
        """Group ROWS events by the TABLE_MAP that holds for them."""
        maps = np.flatnonzero(events.types == EventType.TABLE_MAP)
        words = integers(events.buffer, "<u8")
        for kind, chosen in (("TABLE_MAP", maps), ("ROWS", rows)):
            if (events.end[chosen] - events.start[chosen] < HEADER + 8).any():
                raise DataError(f"a {kind} event of the source is too short")
        map_numbers = words[events.start[maps] + HEADER] & TABLE_NUMBER
        indexes = self._read_maps(events, maps)
        row_numbers = words[events.start[rows] + HEADER] & TABLE_NUMBER
        found: list[tuple[int, Positions]] = []
        for number in _distinct(row_numbers):
            mine = rows if (row_numbers == number).all() else rows[row_numbers == number]
            of_number = map_numbers == number
            found += self._cut(int(number), mine, maps[of_number], indexes[of_number])
        for number in _distinct(map_numbers):
            self._current[int(number)] = int(indexes[map_numbers == number][-1])
        return found

    def _cut(
        self, number: int, rows: Positions, maps: Positions, indexes: NDArray[np.int64]
    ) -> list[tuple[int, Positions]]:
        """Cut one table's events where its TABLE_MAP changes."""
        before = self._current.get(number, -1)
        known = np.concatenate([[before], indexes])[np.searchsorted(maps, rows)]
        if (known < 0).any():
            raise DataError("the source sent rows of a table before describing it")
        edges = [0, *(np.flatnonzero(np.diff(known)) + 1).tolist(), len(rows)]
        return [(int(known[first]), rows[first:after]) for first, after in pairwise(edges)]

    def _read_maps(self, events: Events, maps: Positions) -> NDArray[np.int64]:
        """Return the index of each TABLE_MAP's shape; those seen before cost one look-up."""
        if len(self._maps) > MOST_MAPS:
            self._maps.clear()
        content = memoryview(events.buffer.data)
        edges = zip((events.start[maps] + HEADER).tolist(), events.end[maps].tolist(), strict=True)
        return np.array([self._index(bytes(content[begin:end])) for begin, end in edges], np.int64)

    def _index(self, content: bytes) -> int:
        index = self._maps.get(content)
        if index is None:
            described = read_table_map(content, mariadb=self._mariadb)
            if TableId(described.schema, described.name) in self._without:
                return 0
            table = self._make_table(described)
            index = 0 if table is None else self._index_of(RowShape(described, table, self._dates))
            self._maps[content] = index
        return index

    def _index_of(self, shape: RowShape) -> int:
        index = self._known.setdefault(shape, len(self._shapes))
        if index == len(self._shapes):
            self._shapes.append(shape)
        return index


def _distinct(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return numbers[:1] if len(numbers) and (numbers == numbers[0]).all() else np.unique(numbers)
