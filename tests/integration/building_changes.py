"""Writes changes by hand, row by row, for tests of sinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from cdcrep.changes import DELETE, INSERT, UPDATE, Batch, Changes
from cdcrep.position import Position
from cdcrep.table import Column, ColumnType, Kind, Table

Row = tuple[str | None, ...]

KINDS = {"integer": Kind.INT32, "bigint": Kind.INT64, "text": Kind.TEXT}


def make_table(name: str, columns: str, key: str = "", schema: str = "public") -> Table:
    """Make a table of `"id integer, note text"`; key columns are separated by blanks."""
    pairs = [column.strip().partition(" ") for column in columns.split(", ")] if columns else []
    return Table(
        schema,
        name,
        tuple(
            Column(column, ColumnType(KINDS.get(native, Kind.VERBATIM), native), nullable=column not in key.split())
            for column, _, native in pairs
        ),
        tuple(key.split()),
        "postgresql",
    )


@dataclass
class Recorder:
    """Collects the changes of one table."""

    table: Table
    operations: list[int] = field(default_factory=list)
    new: list[Row] = field(default_factory=list)
    old: list[Row | None] = field(default_factory=list)
    unchanged: list[set[int]] = field(default_factory=list)
    truncated: bool = False

    def insert(self, *row: str | None) -> Recorder:
        return self._add(INSERT, row, None)

    def update(self, *row: str | None, old: Row | None = None, unchanged: Sequence[int] = ()) -> Recorder:
        row = tuple(None if i in unchanged else value for i, value in enumerate(row))
        return self._add(UPDATE, row, old, set(unchanged))

    def delete(self, *identity: str | None) -> Recorder:
        return self._add(DELETE, (None,) * len(self.table.columns), identity)

    def _add(self, operation: int, new: Row, old: Row | None, unchanged: set[int] | None = None) -> Recorder:
        self.operations.append(operation)
        self.new.append(new)
        self.old.append(old)
        self.unchanged.append(unchanged or set())
        return self

    def changes(self) -> Changes:
        identity = self.table.identity
        ordinals = sorted(set().union(*self.unchanged)) if self.unchanged else []
        has_old = np.array([old is not None for old in self.old], np.bool_)
        return Changes(
            self.table,
            np.array(self.operations, np.uint8),
            columns_of(self.new, [column.name for column in self.table.columns]),
            columns_of([old or (None,) * len(identity) for old in self.old], [column.name for column in identity])
            if has_old.any()
            else None,
            has_old if has_old.any() else None,
            {i: np.array([i in cells for cells in self.unchanged], np.bool_) for i in ordinals},
            truncated=self.truncated,
        )


def columns_of(rows: Sequence[Row], names: Sequence[str]) -> pa.Table:
    """Make an Arrow table of text forms."""
    if not names:
        return pa.table({"": pa.nulls(len(rows))}).select([])
    return pa.table([pa.array([row[i] for row in rows], pa.string()) for i in range(len(names))], names=list(names))


def make_batch(position: str | None, *recorders: Recorder | Changes, transactions: int = 1) -> Batch:
    changes = tuple(one if isinstance(one, Changes) else one.changes() for one in recorders)
    return Batch(
        None if position is None else Position(position),
        changes,
        transactions=transactions,
        commit_time=1_700_000_000.0,
    )
