"""Cuts a table into ranges of its key that hold about as many rows each, by the server's own estimates.

A range is halved until the server estimates few enough rows in it, which costs a look at the index and not at the rows
(`EXPLAIN`): so it does not matter how sparse or skewed the keys are. Where one value of a key's first column has too
many rows, it is cut by the next column.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cdcrep.table import INTEGERS, Table
from cdcrep_connectors.mysql.key_scales import Scale, scale_of
from cdcrep_connectors.mysql.sql_text import quoted, quoted_table, text_literal

Ask = Callable[[str], Sequence[dict[str, Any]]]
"""Runs a statement and returns its rows, by the columns' names in lower case."""

Bound = tuple[str, ...]
"""SQL of the values of a key's first columns."""

MOST_CHUNKS: Final = 10_000
MOST_QUESTIONS: Final = 50_000


KEY: Final = """
SELECT column_name AS name FROM information_schema.statistics
WHERE table_schema = {} AND table_name = {} AND index_name = 'PRIMARY' ORDER BY seq_in_index
"""


@dataclass(frozen=True)
class _Part:
    """Keys from a bound on, up to that of the next part."""

    start: Bound
    rows: int
    """Estimate."""


@dataclass(frozen=True)
class KeyRanges:
    """All keys of a table, cut at n - 1 bounds: the first of n ranges has no beginning, the last one no end."""

    names: tuple[str, ...] = ()
    """SQL names of the key's columns, as its index has them."""
    bounds: tuple[Bound, ...] = ()
    """Where the ranges from the second on begin, ascending by the server's comparison."""

    def __len__(self) -> int:
        """Count the ranges."""
        return len(self.bounds) + 1

    def condition(self, index: int) -> str:
        """Return SQL behind the table's name for the rows of a range; empty: all rows."""
        start = self.bounds[index - 1] if index else ()
        after = self.bounds[index] if index < len(self.bounds) else ()
        return _where(_between(self.names, start, after))

    def within(self, chosen: Collection[int]) -> str:
        """Write the condition for keys in some of the ranges, with as few comparisons of a key as a search needs."""
        every = frozenset(chosen)
        return self._search([i for i in range(len(self)) if not i or (i in every) != (i - 1 in every)], every)

    def _search(self, starts: Sequence[int], chosen: frozenset[int]) -> str:
        """Write the condition for keys in some of the runs of ranges that begin so."""
        if len(starts) == 1:
            return "TRUE" if starts[0] in chosen else "FALSE"
        half = len(starts) // 2
        below = _compared(self.names, self.bounds[starts[half] - 1], "<", "<")
        return f"IF({below}, {self._search(starts[:half], chosen)}, {self._search(starts[half:], chosen)})"


def key_ranges(ask: Ask, table: Table, count: int, rows: int) -> tuple[KeyRanges, list[float]]:
    """Cut a table of about so many rows into about `count` ranges; return also the share of the rows that each has."""
    count = min(count, MOST_CHUNKS)
    if count < 2 or not table.key:
        return KeyRanges(), [1.0]
    cutter = _Cutter(ask, table, max(rows // count, 1))
    parts = cutter.ascending(_merged(cutter.parts(), cutter.target))
    total = max(sum(part.rows for part in parts), 1)
    bounds = tuple(part.start for part in parts[1:])
    ranges = KeyRanges(tuple(cutter.names), bounds) if bounds else KeyRanges()
    return ranges, [part.rows / total for part in parts] or [1.0]


class _Cutter:
    def __init__(self, ask: Ask, table: Table, target: int) -> None:
        self._ask = ask
        self.target = target
        # As the index has them, which may be otherwise than the table does.
        order = ask(KEY.format(*map(text_literal, (table.schema, table.name))))
        columns = {column.name: column for column in table.columns}
        self._key = [columns[_decoded(row["name"])] for row in order]
        self.names = [quoted(column.name) for column in self._key]
        # Not FORCE INDEX, with which MySQL looks for no estimate.
        self._rows_of = f"FROM {quoted_table(table.id)} USE INDEX (PRIMARY)"
        self._questions = 0

    def parts(self, first: Bound = ()) -> Iterator[_Part]:
        """Yield the parts of all rows whose key begins so, in order."""
        name = self.names[len(first)]
        same = " AND ".join(f"{each} = {value}" for each, value in zip(self.names, first, strict=False))
        # As bytes: of text that is not in the session's character set the driver could make none.
        asked = f"CAST(min({name}) AS BINARY) AS low, CAST(max({name}) AS BINARY) AS high"
        (edges,) = self._ask(f"SELECT {asked} {self._rows_of}{_where(same)}")
        low, high = edges["low"], edges["high"]
        scale = None if low is None else scale_of(self._key[len(first)], low, high)
        if scale is not None and scale.first < scale.last:
            yield from self._halved(scale, first, scale.first, scale.last + 1, self.target * 3)

    def _halved(self, scale: Scale, first: Bound, low: int, after: int, rows: int) -> Iterator[_Part]:
        """Yield the parts of the keys numbered from `low` to before `after`."""
        start = (*first, scale.literal(low))
        if rows <= self.target or self._questions >= MOST_QUESTIONS:
            yield _Part(start, rows)
        elif after - low > 1:
            middle = (low + after) // 2
            yield from self._halved(scale, first, low, middle, self._rows(scale, first, low, middle))
            yield from self._halved(scale, first, middle, after, self._rows(scale, first, middle, after))
        else:
            yield _Part(start, 0)
            deeper = len(start) < len(self.names) and self._key[len(first)].type.kind in INTEGERS
            within = [*self.parts(start)] if deeper else []
            yield from within or [_Part(start, rows)]

    def _rows(self, scale: Scale, first: Bound, low: int, after: int) -> int:
        """Return the server's estimate."""
        self._questions += 1
        start, end = (*first, scale.literal(low)), (*first, scale.literal(after))
        condition = _between(self.names, start, end)
        answer = self._ask(f"EXPLAIN FORMAT=TRADITIONAL SELECT 1 {self._rows_of}{_where(condition)}")
        return int(answer[0].get("rows") or 0) if answer else 0

    def ascending(self, parts: Sequence[_Part]) -> list[_Part]:
        """Leave out bounds in front of which there is no row: what remains ascends also by the server's comparison.

        A row that is not below one bound and is below the next proves that these two ascend.
        """
        kept: list[_Part] = []
        for part in parts:
            if not kept:
                kept.append(_Part((), part.rows))
                continue
            last = kept[-1]
            condition = _between(self.names, last.start, part.start)
            if self._ask(f"SELECT 1 {self._rows_of}{_where(condition)} LIMIT 1"):
                kept.append(part)
            else:
                kept[-1] = _Part(last.start, last.rows + part.rows)
        return kept


def _merged(parts: Iterator[_Part], target: int) -> list[_Part]:
    """Join small neighbours."""
    merged: list[_Part] = []
    for part in parts:
        if merged and merged[-1].rows + part.rows <= target * 3 // 2:
            merged[-1] = _Part(merged[-1].start, merged[-1].rows + part.rows)
        else:
            merged.append(part)
    return merged


def _between(names: Sequence[str], start: Bound, after: Bound) -> str:
    """Write the condition for keys from one bound to before another; an empty bound is none."""
    tests = []
    if start:
        tests.append(_compared(names, start, ">", ">="))
    if after:
        tests.append(_compared(names, after, "<", "<"))
    return " AND ".join(tests)


def _compared(names: Sequence[str], bound: Bound, strictly: str, last: str) -> str:
    """Compare a key's first columns with a bound, written so that the servers use the key's index."""
    *before, end = range(len(bound))
    test = f"{names[end]} {last} {bound[end]}"
    for i in reversed(before):
        test = f"({names[i]} {strictly} {bound[i]} OR ({names[i]} = {bound[i]} AND {test}))"
    return test


def _decoded(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _where(condition: str) -> str:
    return f" WHERE {condition}" if condition else ""
