"""Random histories of one table in memory: transactions over few keys that reuse, move, swap and chain them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import strategies as st

from cdcrep.changes import INSERT, UPDATE, Batch, Changes, merge
from cdcrep.position import Position
from cdcrep.table import Column, ColumnType, Kind, Table
from cdcrep.testing.memory import Delete, Insert, SourceDatabase, Truncate, Update
from cdcrep.testing.memory_source import columnar
from cdcrep.testing.memory_tables import Row, Statement, Value

NAME = "public.t"
TEXT = ColumnType(Kind.TEXT, "text")
KEYED = Table(
    "public",
    "t",
    (Column("a", TEXT, False), Column("kept", TEXT), Column("b", TEXT, False), Column("v", TEXT), Column("w", TEXT)),
    ("a", "b"),
    "postgresql",
)
KEYLESS = Table("public", "t", KEYED.columns[:3], (), "postgresql")
KEYS = [(str(a), str(b)) for a in range(2) for b in range(3)]

small = st.integers(0, 3)
KINDS = ["insert", "update", "update", "move", "move", "rotate", "delete", "revive", "truncate"]
steps = st.tuples(st.sampled_from(KINDS), small, small, st.integers(0, 7))
transactions = st.lists(st.lists(steps, min_size=1, max_size=8), max_size=8)
"""Transactions' statements as numbers, which `run` interprets against the rows that are there."""


@dataclass
class History:
    """What a source database went through after `before`."""

    table: Table
    before: list[Row]
    transactions: list[list[Changes]]
    after: list[Row]


def run(
    table: Table, start: Sequence[tuple[int, int]], script: Sequence[Sequence[tuple[str, int, int, int]]]
) -> History:
    """Run a script at a database in memory that holds rows under the keys `start`."""
    # `ahead` runs every statement by itself, so that the rows inside a transaction are known.
    database, ahead = SourceDatabase(), SourceDatabase()
    rows = [(str(a), f"kept{a}{b}", str(b), None, f"w{a}{b}") for a, b in dict.fromkeys(start)]
    for each in (database, ahead):
        each.create(table, unsent=("kept", "w"))
        each.commit(*(Insert(NAME, _named(table, row)) for row in rows))
    before, first = database.rows(NAME), len(database.log)
    for script_of_one in script:
        statements: list[Statement] = []
        for step in script_of_one:
            more = _statements(ahead.rows(NAME), table, step)
            ahead.commit(*more)
            statements += more
        if statements:
            database.commit(*statements)
    return History(
        table, before, [list(columnar(entry.changes)) for entry in database.log[first:]], database.rows(NAME)
    )


def cut(history: History, cuts: Sequence[bool]) -> list[Batch]:
    """Merge neighbouring transactions where `cuts` does not separate them."""
    groups: list[list[Batch]] = []
    for i, changes in enumerate(history.transactions):
        batch = Batch(Position(str(i)), tuple(changes), transactions=1, commit_time=float(i))
        if not groups or (i < len(cuts) and cuts[i]):
            groups.append([])
        groups[-1].append(batch)
    return [merge(group) for group in groups]


def with_every_old_key(changes: Changes) -> Changes:
    """Let every UPDATE carry its old key, as a source that logs whole old rows does, also where it did not move."""
    if not (changes.operations == UPDATE).any():
        return changes
    keys = changes.new.select(list(changes.table.key_positions))
    sent = changes.old_present if changes.old_present is not None else np.zeros(len(changes), np.bool_)
    old = changes.old if changes.old is not None else keys
    columns = [
        pc.if_else(pa.array(sent), old.column(i).combine_chunks(), keys.column(i).combine_chunks())
        for i in range(len(keys.columns))
    ]
    return replace(changes, old=pa.table(columns, schema=keys.schema), old_present=changes.operations != INSERT)


def with_typed_keys(changes: Changes) -> Changes:
    """Let the key come as integers instead of text."""

    def typed(rows: pa.Table) -> pa.Table:
        return pa.table(
            {
                name: column.cast(pa.int32()) if name in changes.table.key else column
                for name, column in zip(rows.column_names, rows.columns, strict=True)
            }
        )

    return replace(changes, new=typed(changes.new), old=None if changes.old is None else typed(changes.old))


def _statements(rows: Sequence[Row], table: Table, step: tuple[str, int, int, int]) -> list[Statement]:
    """Turn numbers into statements that are valid for these rows; none where there is no such thing."""
    kind, i, j, k = step
    value: Value = None if k == 0 else f"v{k}"
    free = [key for key in KEYS if key not in {_key(row) for row in rows}] if table.key else [(str(i), str(j))]
    if kind == "truncate":
        return [Truncate(NAME)] if k < 2 else []
    if kind == "insert" or not rows:
        a, b = free[i % len(free)] if free else ("", "")
        return [Insert(NAME, _named(table, (a, f"new{k}", b, value, f"w{k}")))] if free else []
    row = rows[(3 * i + j) % len(rows)]
    where = _where(table, row)
    if kind == "delete":
        return [Delete(NAME, where)]
    if kind == "update":
        to: dict[str, Value] = {"kept": value} if k % 3 == 0 else {table.columns[-1].name: value}
        return [Update(NAME, where, to if k % 2 else {**to, table.columns[3 % len(row)].name: f"k{k}"})]
    if not free:
        return []
    spare = dict(zip(("a", "b"), free[k % len(free)], strict=True))
    if kind == "revive":
        return [Delete(NAME, where), Insert(NAME, {**_named(table, row), "kept": f"r{k}"})]
    if kind == "rotate" and table.key:
        other = _where(table, rows[(j + 1) % len(rows)])
        if other != where:
            return [Update(NAME, where, spare), Update(NAME, other, where), Update(NAME, spare, other)]
    return [Update(NAME, where, {**spare, "kept": value} if k % 2 else spare)]


def _key(row: Row) -> tuple[Value, Value]:
    return row[0], row[2]


def _where(table: Table, row: Row) -> dict[str, Value]:
    return {name: value for name, value in _named(table, row).items() if not table.key or name in table.key}


def _named(table: Table, row: Sequence[Value]) -> dict[str, Value]:
    return dict(zip((column.name for column in table.columns), row, strict=False))
