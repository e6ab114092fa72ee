"""Random histories through the PostgreSQL sink leave the rows that applying them one by one leaves."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from cdcrep.changes import Batch, Changes, merge
from cdcrep.connector import Copied, Pipeline
from cdcrep.position import Position
from cdcrep.selection import Selection
from cdcrep_connectors.postgres.sink import PostgresSink
from tests.integration.building_changes import Recorder, Row, make_batch, make_table
from tests.servers.database import Database
from tests.servers.fix_postgres import oldest_and_newest_target

KEYED = make_table("keyed", "a integer, note text, b integer, big text, tag text", "a b")
LOOSE = make_table("loose", "n integer, note text")
TEXTS = ("", "x", "tab\there", "back\\slash", "line\nend\r", "\\N", "'quote'", "π😀")


class History:
    """Makes valid changes of two tables and applies them, one at a time, to dictionaries: the oracle."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.keyed: dict[tuple[str, str], Row] = {}
        self.loose: Counter[Row] = Counter()

    def piece(self, changes: int) -> list[Changes]:
        keyed, loose = Recorder(KEYED), Recorder(LOOSE)
        keyed.truncated = self.dice.random() < 0.04
        loose.truncated = self.dice.random() < 0.04
        if keyed.truncated:
            self.keyed.clear()
        if loose.truncated:
            self.loose.clear()
        for _ in range(changes):
            self._change_keyed(keyed) if self.dice.random() < 0.7 else self._change_loose(loose)
        return [one.changes() for one in (keyed, loose) if one.operations or one.truncated]

    def _change_keyed(self, recorder: Recorder) -> None:
        dice = self.dice
        action = dice.choice(("insert", "update", "update", "move", "move", "delete")) if self.keyed else "insert"
        free = self._free_key()
        if action == "insert":
            if free is None:
                return
            row = self._row(free, None)
            recorder.insert(*row)
            self.keyed[free] = row
            return
        key = dice.choice(sorted(self.keyed))
        before = self.keyed[key]
        if action == "delete":
            recorder.delete(*key)
            del self.keyed[key]
            return
        moves = action == "move" and free is not None
        after_key = free if moves and free is not None else key
        keep = [i for i in (1, 3) if before[i] is not None and dice.random() < 0.5]
        made = self._row(after_key, before[4])
        row = tuple(before[i] if i in keep else value for i, value in enumerate(made))
        recorder.update(*row, old=key if moves else None, unchanged=keep)
        del self.keyed[key]
        self.keyed[after_key] = row

    def _free_key(self) -> tuple[str, str] | None:
        free = [(str(a), str(b)) for a in range(6) for b in range(3) if (str(a), str(b)) not in self.keyed]
        return self.dice.choice(free) if free else None

    def _row(self, key: tuple[str, str], tag: str | None) -> Row:
        """Make a row; its last column is unique among the rows, and often takes what another row just gave up."""
        dice = self.dice
        taken = {row[4] for row in self.keyed.values()} - {tag}
        free = [tag for tag in "abcdefghijklmnopqrstuvwxyz" if tag not in taken][:3]
        note = dice.choice((None, *TEXTS))
        big = None if dice.random() < 0.1 else dice.choice(TEXTS) * dice.randrange(1, 50)
        return (key[0], note, key[1], big, dice.choice(free))

    def _change_loose(self, recorder: Recorder) -> None:
        dice = self.dice
        row: Row = (dice.choice(("1", "2", None)), dice.choice((None, *TEXTS[:4])))
        present = sorted(self.loose.elements(), key=repr)
        action = dice.choice(("insert", "update", "delete")) if present else "insert"
        if action == "insert":
            recorder.insert(*row)
            self.loose[row] += 1
            return
        old = dice.choice(present)
        self.loose[old] -= 1
        if action == "update":
            recorder.update(*row, old=old)
            self.loose[row] += 1
        else:
            recorder.delete(*old)


@pytest.fixture
def sink(target_database: Database) -> Iterator[PostgresSink]:
    sink = PostgresSink(
        Pipeline("shop", Selection(("*",))), PostgresSink.Options.model_validate({"url": target_database.url})
    )
    sink.open()
    sink.prepare([KEYED, LOOSE])
    sink.register({KEYED.id: Copied(Position("0")), LOOSE.id: Copied(Position("0"))}, Position("0"))
    yield sink
    sink.close()


def next_batch(history: History, number: int) -> list[Batch]:
    """Make the next transactions: one batch, several merged, or pieces of a large one."""
    dice = history.dice
    sizes = [dice.choice((0, 1, 1, 3, 10, 90)) for _ in range(dice.choice((1, 1, 2, 4)))]
    pieces = [make_batch(None, *history.piece(size)) for size in sizes]
    last = make_batch(str(number), *history.piece(dice.choice((0, 1, 2, 30))))
    return [merge([*pieces, last])] if dice.random() < 0.7 else [*pieces, last]


@oldest_and_newest_target
@pytest.mark.parametrize("unique_tag", [False, True], ids=["plain", "with a unique column"])
def test_random_histories_leave_the_rows_of_a_row_at_a_time_oracle(
    sink: PostgresSink, target_database: Database, unique_tag: bool
) -> None:
    seed = random.randrange(1 << 32)
    sys.stdout.write(f"seed {seed}\n")
    history = History(random.Random(seed))
    target_database.execute("ALTER TABLE keyed ADD own text DEFAULT 'kept'")
    if unique_tag:
        target_database.execute("CREATE UNIQUE INDEX ON keyed (tag)")
    sink.open()

    for number in range(1, 60):
        for batch in next_batch(history, number):
            sink.apply(batch)

        assert rows_of(target_database, "a, note, b, big, tag", "keyed") == Counter(history.keyed.values()), seed
        assert rows_of(target_database, "n, note", "loose") == +history.loose, seed
    assert target_database.execute("SELECT count(*) FROM keyed WHERE own IS DISTINCT FROM 'kept'") == [(0,)]


def rows_of(database: Database, columns: str, table: str) -> Counter[Row]:
    texts = ", ".join(f"{column.strip()}::text" for column in columns.split(","))
    return Counter(database.execute(f"SELECT {texts} FROM {table}"))
