"""Random histories applied in random batches leave what applying them row by row leaves."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from cdcrep.changes import DELETE, INSERT, UPDATE, Changes, concatenate
from cdcrep.table import Column, ColumnType, Kind, Table
from tests.integration.duckdb_target import (
    batch,
    change,
    keyed,
    keyless,
    open_sink,
    rows_of,
    write_as_owner,
)

HISTORIES = 12
BATCHES = 8

KEPT = "mine"
ANY = object()


class Model:
    """A table with a key, changed one row at a time, that writes down its changes."""

    def __init__(self, random_: random.Random, table: Table) -> None:
        self.random = random_
        self.table = table
        self.rows: dict[str, list[str | None]] = {}
        self.own: dict[str, object] = {}
        self.vacated: set[str] = set()
        self.created: set[str] = set()
        self.parts: list[Changes] = []

    def begin_batch(self) -> None:
        self.vacated, self.created, self.parts = set(), set(), []

    def step(self) -> None:
        actions = [self.insert] * 3 + [self.update] * 4 + [self.move] * 2 + [self.delete] * 2 + [self.swap]
        if self.random.random() < 0.02:
            actions = [self.truncate]
        self.random.choice(actions)()

    def text(self) -> str | None:
        return self.random.choice([None, "", "'; --", "%s", "null", "é\n", str(self.random.random())])

    def unused(self) -> str | None:
        free = [str(i) for i in range(30) if str(i) not in self.rows]
        return self.random.choice(free) if free else None

    def used(self) -> str | None:
        return self.random.choice(sorted(self.rows)) if self.rows else None

    def insert(self) -> None:
        if (key := self.unused()) is None:
            return
        row = [key, self.text(), self.text()]
        self.created.add(key)
        # Whether the target's own column survives a delete and an insert under its key within a batch is left open.
        self.own[key] = ANY if key in self.vacated else 7
        self.rows[key] = row
        self.parts.append(change(INSERT, self.table, row, None))

    def update(self) -> None:
        if (key := self.used()) is not None:
            self._write(key, key)

    def move(self) -> None:
        key, free = self.used(), self.unused()
        if key is not None and free is not None:
            self._write(key, free)

    def swap(self) -> None:
        if len(self.rows) < 2 or (free := self.unused()) is None:
            return
        one, other = self.random.sample(sorted(self.rows), 2)
        self._write(one, free)
        self._write(other, one)
        self._write(free, other)

    def delete(self) -> None:
        if (key := self.used()) is None:
            return
        del self.rows[key], self.own[key]
        self.created.discard(key)
        self.vacated.add(key)
        self.parts.append(change(DELETE, self.table, None, [key]))

    def truncate(self) -> None:
        self.rows, self.own, self.vacated, self.created = {}, {}, set(), set()
        self.parts.append(Changes.truncate(self.table))

    def _write(self, old: str, new: str) -> None:
        unchanged = [i for i in (1, 2) if self.random.random() < 0.4]
        before, own = self.rows.pop(old), self.own.pop(old)
        row = [new, *(before[i] if i in unchanged else self.text() for i in (1, 2))]
        self.rows[new], self.own[new] = row, own
        sent = [None if i in unchanged else value for i, value in enumerate(row)]
        if old != new:
            self.vacated.add(old)
            if old in self.created:
                self.created = self.created - {old} | {new}
                self.own[new] = ANY if new in self.vacated else own
            else:
                self.created.discard(new)
        self.parts.append(change(UPDATE, self.table, sent, [old] if old != new else None, unchanged))


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("own_column", [False, True], ids=["plain", "with an own column"])
def test_a_table_with_a_key_equals_the_row_by_row_oracle(tmp_path: Path, own_column: bool) -> None:
    seed = random.randrange(2**32)
    for history in range(HISTORIES):
        model = Model(random.Random(seed + history), keyed("items", Column("more", ColumnType(Kind.TEXT, "text"))))
        sink = open_sink(tmp_path / f"{history}.duckdb", model.table)
        if own_column:
            write_as_owner(sink, f"ALTER TABLE public.items ADD COLUMN {KEPT} INTEGER DEFAULT 7")
        for number in range(BATCHES):
            model.begin_batch()
            for _ in range(model.random.choice([1, 2, 5, 40])):
                model.step()
            if not model.parts:
                continue
            if model.random.random() < 0.2:
                sink.apply(batch(None, concatenate(model.parts)))
                model.begin_batch()
                model.step()
                for key in model.own:
                    if model.own[key] == 7 and key in model.vacated:
                        model.own[key] = ANY
            whole = batch(str(number + 1), *([concatenate(model.parts)] if model.parts else []))
            sink.apply(whole)
            if model.random.random() < 0.3:
                sink.apply(whole)

            found = rows_of(sink, "SELECT id::VARCHAR, note, more FROM public.items")
            assert Counter(found) == Counter(tuple(row) for row in model.rows.values()), (
                f"history {history} of seed {seed}"
            )
            if own_column:
                held = dict(rows_of(sink, f"SELECT id::VARCHAR, {KEPT} FROM public.items"))
                assert {k: v for k, v in held.items() if model.own[k] is not ANY} == {
                    k: v for k, v in model.own.items() if v is not ANY
                }, f"history {history} of seed {seed}"
                for key in list(model.own)[:2]:
                    model.own[key] = model.random.randrange(1000)
                    write_as_owner(sink, f"UPDATE public.items SET {KEPT} = {model.own[key]} WHERE id = {key}")
        sink.close()


FLOATS = ["0", "-0", "NaN", "1.5", "Infinity", None]
INTERVALS = ["1 mon", "30 days", "-1 days +02:03:00", None]


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_table_without_a_key_equals_the_row_by_row_oracle(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    table = keyless(
        Column("a", ColumnType(Kind.FLOAT64, "double precision")), Column("b", ColumnType(Kind.INTERVAL, "interval"))
    )
    for history in range(HISTORIES):
        choose = random.Random(seed + history)
        sink = open_sink(tmp_path / f"{history}.duckdb", table)
        rows: list[tuple[str | None, ...]] = []
        for number in range(BATCHES):
            parts = []
            for _ in range(choose.choice([1, 3, 30])):
                row = (choose.choice(FLOATS), choose.choice(INTERVALS))
                action = choose.random()
                if action < 0.5 or not rows:
                    rows.append(row)
                    parts.append(change(INSERT, table, row, None))
                elif action < 0.75:
                    parts.append(change(DELETE, table, None, rows.pop(choose.randrange(len(rows)))))
                else:
                    parts.append(change(UPDATE, table, row, rows.pop(choose.randrange(len(rows)))))
                    rows.append(row)
            whole = batch(str(number + 1), concatenate(parts))
            sink.apply(whole)
            if choose.random() < 0.3:
                sink.apply(whole)

            found = rows_of(sink, "SELECT a::VARCHAR, b::VARCHAR FROM public.events")
            assert Counter(found) == Counter(map(_as_duckdb_writes, rows)), f"history {history} of seed {seed}"
        sink.close()


def _as_duckdb_writes(row: tuple[str | None, ...]) -> tuple[str | None, ...]:
    floats = {"0": "0.0", "-0": "-0.0", "NaN": "nan", "1.5": "1.5", "Infinity": "inf", None: None}
    intervals = {"1 mon": "1 month", "30 days": "30 days", "-1 days +02:03:00": "-1 day 02:03:00", None: None}
    return floats[row[0]], intervals[row[1]]
