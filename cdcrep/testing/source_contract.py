"""What every source promises, as tests that run over any source with the memory sink as the judge."""

# A test's name is its sentence; a fixture may be requested for its effect.
# ruff: noqa: ARG002, D102
from __future__ import annotations

import contextlib
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar

import pytest

from cdcrep.changes import Batch
from cdcrep.connector import Copied, Pipeline, Snapshot, Source
from cdcrep.errors import CdcrepError, DivergedError
from cdcrep.position import Position
from cdcrep.selection import Selection
from cdcrep.table import Column, Table, TableId
from cdcrep.testing.contract_data import INT, LONG, TEXT, Origin, table
from cdcrep.testing.memory import (
    AddColumn,
    Delete,
    Insert,
    MemorySink,
    TargetDatabase,
    Truncate,
    Update,
)
from cdcrep.testing.memory_tables import Row, Statement, ordered

ITEMS = table("items")
EVENTS = table("events", key=(), worker=INT, what=TEXT)
OTHER = table("other", x=INT, id=INT)
SELECTED = Pipeline("contract", Selection(("shop.items", "shop.events")), heartbeat_seconds=0.2)


def item(number: int, note: str | None = None, big: str | None = LONG) -> Insert:
    """Insert an item."""
    return Insert("shop.items", {"id": str(number), "note": note, "big": big})


def event(number: int) -> Insert:
    """Insert an event, one of possibly many equal ones."""
    return Insert("shop.events", {"worker": str(number), "what": "happened"})


@dataclass
class Following:
    """A source and its copy in memory."""

    origin: Origin
    source: Source
    sink: MemorySink
    position: Position
    copied: Mapping[TableId, Copied]
    batches: list[Batch] = field(default_factory=list)

    @classmethod
    def start(cls, origin: Origin, pipeline: Pipeline = SELECTED) -> Following:
        """Set a source up and copy its tables as they are now."""
        source = origin.source(pipeline)
        sink = MemorySink(pipeline, MemorySink.Options(url=f"memory:{uuid.uuid4()}"))
        sink.open()
        source.set_up()
        tables = source.tables()
        sink.prepare(tables)
        snapshot = source.start()
        chunks = [chunk for each in tables for chunk in snapshot.chunks(each, None)]
        copied = {each.id: Copied(snapshot.position, snapshot=snapshot.note(each)) for each in tables}
        sink.register(copied, snapshot.position)
        loader = sink.loader()
        for chunk in chunks:
            loader.load(chunk, snapshot.read(chunk))
        snapshot.close()
        return cls(origin, source, sink, snapshot.position, copied)

    def catch_up(self) -> list[Batch]:
        """Apply and confirm everything committed by now; return the batches."""
        batches = []
        for batch in self.source.stream(self.position, self.copied, self.source.current()):
            self.sink.apply(batch)
            batches.append(batch)
            if batch.position is not None:
                self.position = batch.position
                self.source.confirm(batch.position)
        return batches

    def restart(self, pipeline: Pipeline = SELECTED) -> None:
        """Close the source and construct another, as after a failure."""
        self.source.close()
        self.source = self.origin.source(pipeline)

    def rows(self, table: Table) -> list[Row]:
        """Return the copy's rows."""
        return TargetDatabase.at(self.sink.options.url).rows(str(table.id))


def read(source: Source, after: Position, copied: Mapping[TableId, Copied]) -> list[Batch]:
    """Read everything committed by now and confirm nothing."""
    return list(source.stream(after, copied, source.current()))


def values(batches: Iterable[Batch], table: Table, column: int = 0) -> list[str]:
    """Return one column of a table's changes in order."""
    return [
        str(value)
        for batch in batches
        for changes in batch.changes
        if changes.table.id == table.id
        for value in changes.new.column(column).to_pylist()
    ]


def keys(snapshot: Snapshot, table: Table) -> list[Row]:
    """Return the keys that a snapshot offers, in order."""
    return ordered(
        tuple(str(row[column.name]) for column in table.identity)
        for batch in snapshot.keys(table)["arrow"]()
        for row in batch.to_pylist()
    )


class SourceContract:
    """Subclass, and give it a fixture `origin`; the attributes say what a database cannot do."""

    keeps_log: ClassVar[bool] = True
    """The log is kept from what was confirmed on, in a place that `tear_down` drops; False: while the server likes."""
    truncate_can_be_rolled_back: ClassVar[bool] = True
    """TRUNCATE is a part of its transaction; False: it commits."""

    def forget_log(self, origin: Origin) -> None:
        """Make a server that keeps its log only while it wants to remove it up to now."""

    @pytest.fixture
    def origin(self) -> Origin:
        """Make an adapter around a fresh database."""
        raise NotImplementedError

    @pytest.fixture
    def start(self, origin: Origin) -> Iterator[Sequence[Table]]:
        """Create ITEMS with three rows, EVENTS with two equal ones, and OTHER, which is not replicated."""
        origin.create(ITEMS, unsent=("big",))
        origin.create(EVENTS)
        origin.create(OTHER)
        origin.commit(item(1, "one"), item(2, "two"), item(3, None, None), event(1), event(1))
        yield (ITEMS, EVENTS, OTHER)
        origin.close()

    @pytest.fixture
    def following(self, origin: Origin, start: Sequence[Table]) -> Iterator[Following]:
        """Follow ITEMS and EVENTS."""
        following = Following.start(origin)
        yield following
        following.source.stop()
        following.source.close()
        following.source.tear_down()
        following.source.close()

    def assert_equal(self, following: Following, *tables: Table) -> None:
        """Compare the copy with the source, row by row."""
        for each in tables or (ITEMS, EVENTS):
            assert ordered(following.rows(each)) == ordered(following.origin.rows(each))

    def test_a_ready_database_has_no_fatal_obstacle(self, origin: Origin, start: Sequence[Table]) -> None:
        source = origin.source(SELECTED)

        assert [obstacle.what for obstacle in source.obstacles() if obstacle.fatal] == []
        source.close()

    def test_tables_have_the_columns_and_keys_of_the_source(self, origin: Origin, start: Sequence[Table]) -> None:
        source = origin.source(SELECTED)

        found = {each.id: each for each in source.tables()}

        source.close()
        assert found.keys() == {ITEMS.id, EVENTS.id}
        for expected in (ITEMS, EVENTS):
            names = [(column.name, column.nullable) for column in found[expected.id].columns]
            assert names == [(column.name, column.nullable) for column in expected.columns]
            assert found[expected.id].key == expected.key

    def test_the_snapshot_and_the_stream_together_are_exact(self, origin: Origin, following: Following) -> None:
        origin.commit(item(4), event(1))
        origin.commit(
            Update("shop.items", {"id": "1"}, {"note": "uno"}),
            Delete("shop.items", {"id": "2"}),
            Delete("shop.events", {"worker": "1"}),
        )

        following.catch_up()

        self.assert_equal(following)

    def test_a_copy_under_load_is_exact(self, origin: Origin, start: Sequence[Table]) -> None:
        done = threading.Event()
        written: list[int] = []

        def write() -> None:
            while not done.is_set() and len(written) < 2000:
                origin.commit(item(100 + len(written)), event(len(written)))
                written.append(len(written))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            following = Following.start(origin)
            following.catch_up()
        finally:
            done.set()
            writer.join()
        following.catch_up()

        assert written
        self.assert_equal(following)
        following.source.close()
        following.source.tear_down()
        following.source.close()

    def test_every_transaction_comes_once_and_in_order(self, origin: Origin, following: Following) -> None:
        for i in range(20):
            origin.commit(event(10 + i), item(10 + i))

        batches = following.catch_up()

        assert values(batches, EVENTS) == [str(10 + i) for i in range(20)]
        assert sum(batch.transactions for batch in batches) == 20
        assert all(batch.commit_time for batch in batches if batch.rows)
        positions = [batch.position for batch in batches]
        assert len(set(positions)) == len(positions)
        assert following.catch_up() == [] or not any(batch.rows for batch in following.batches)

    def test_it_continues_after_any_position(self, origin: Origin, following: Following) -> None:
        for i in range(6):
            origin.commit(event(10 + i))
        batches = [batch for batch in read(following.source, following.position, following.copied) if batch.rows]

        for i, batch in enumerate(batches):
            following.restart()
            assert batch.position is not None
            again = read(following.source, batch.position, following.copied)
            assert values(again, EVENTS) == values(batches[i + 1 :], EVENTS)

    def test_what_is_not_confirmed_comes_again(self, origin: Origin, following: Following) -> None:
        origin.commit(event(10))
        first = read(following.source, following.position, following.copied)
        following.restart()

        again = read(following.source, following.position, following.copied)

        assert values(first, EVENTS) == values(again, EVENTS) == ["10"]

    def test_a_position_before_what_is_kept_is_refused(self, origin: Origin, following: Following) -> None:
        before = following.position
        origin.commit(event(10))
        following.catch_up()
        origin.commit(event(11))
        following.catch_up()
        following.restart()
        following.catch_up()
        if not self.keeps_log:
            self.forget_log(origin)
        following.restart()

        with pytest.raises(DivergedError):
            read(following.source, before, following.copied)

    def test_a_position_of_another_server_is_refused(self, origin: Origin, following: Following) -> None:
        origin.commit(event(10))

        with pytest.raises(DivergedError):
            next(following.source.stream(origin.foreign_position(following.position), following.copied))

    def test_setting_up_refuses_a_position_of_another_server(self, origin: Origin, following: Following) -> None:
        foreign = origin.foreign_position(following.position)
        following.restart()

        assert following.source.set_up(following.copied.keys(), following.position) == []
        with pytest.raises(DivergedError):
            following.source.set_up(following.copied.keys(), foreign)

    def test_without_its_place_in_the_log_it_does_not_start(self, origin: Origin, following: Following) -> None:
        following.restart()
        assert bool(following.source.tear_down()) == self.keeps_log
        following.restart()

        with pytest.raises(CdcrepError) if self.keeps_log else contextlib.nullcontext():
            read(following.source, following.position, following.copied)
        assert following.source.tear_down() == []

    def test_what_is_rolled_back_or_not_selected_does_not_come(self, origin: Origin, following: Following) -> None:
        origin.roll_back(event(66), *([Truncate("shop.items")] if self.truncate_can_be_rolled_back else []))
        origin.commit(Insert("shop.other", {"id": "1"}))
        origin.commit(event(10))

        assert values(following.catch_up(), EVENTS) == ["10"]
        self.assert_equal(following)

    def test_until_now_ends_when_nothing_happened(self, origin: Origin, following: Following) -> None:
        assert sum(batch.rows for batch in following.catch_up()) == 0
        assert sum(batch.rows for batch in following.catch_up()) == 0

    def test_stop_ends_an_idle_stream(self, origin: Origin, following: Following) -> None:
        ended = threading.Event()

        def follow() -> None:
            for _ in following.source.stream(following.position, following.copied):
                pass
            ended.set()

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        following.source.stop()

        assert ended.wait(10)
        thread.join()

    def test_stop_before_the_stream_ends_it_at_once(self, origin: Origin, following: Following) -> None:
        following.source.stop()

        assert not any(batch.rows for batch in following.source.stream(following.position, following.copied))

    def test_an_idle_source_reports_progress_of_the_log(self, origin: Origin, following: Following) -> None:
        stream = following.source.stream(following.position, following.copied)
        origin.commit(*(Insert("shop.other", {"id": str(i)}) for i in range(100)))

        heartbeat = next(stream)

        assert heartbeat.rows == 0
        assert heartbeat.position not in (None, following.position)
        following.source.stop()
        assert not any(batch.rows for batch in stream)

    def test_a_large_transaction_comes_in_pieces(self, origin: Origin, following: Following) -> None:
        following.restart(replace(SELECTED, max_batch_rows=10))
        origin.commit(event(1000))
        origin.commit(*(event(i) for i in range(500, 555)))
        origin.commit(event(1001))

        batches = [batch for batch in following.catch_up() if batch.rows]

        assert values(batches, EVENTS) == ["1000", *map(str, range(500, 555)), "1001"]
        assert any(batch.position is None for batch in batches)
        assert batches[-1].position is not None
        assert sum(batch.transactions for batch in batches) == 3
        for batch, after in pairwise(batches):
            in_pieces = {"large" if 500 <= int(value) < 555 else value for value in values([batch], EVENTS)}
            assert batch.position is not None or in_pieces == {"large"}
            assert batch.position is not None or "large" in in_pieces or after.position is None
        self.assert_equal(following)

    def test_keys_move_swap_and_chain_with_values_that_are_not_sent(self, origin: Origin, following: Following) -> None:
        def move(old: int, new: int) -> Statement:
            return Update("shop.items", {"id": str(old)}, {"id": str(new)})

        origin.commit(move(1, 9), Update("shop.items", {"id": "9"}, {"note": "moved"}))
        origin.commit(move(2, 0), move(9, 2), move(0, 9), move(3, 1), item(3, "new"), move(3, 4))
        origin.commit(Update("shop.items", {"id": "4"}, {"big": "short"}), Delete("shop.items", {"id": "9"}))

        following.catch_up()

        self.assert_equal(following)

    def test_copies_of_equal_rows_are_counted(self, origin: Origin, following: Following) -> None:
        origin.commit(event(1), Delete("shop.events", {"worker": "1"}))
        origin.commit(Update("shop.events", {"worker": "1"}, {"what": None}), event(1))

        following.catch_up()

        self.assert_equal(following)

    def test_truncate_comes_in_its_place(self, origin: Origin, following: Following) -> None:
        origin.commit(item(4), Truncate("shop.items"), item(5))
        origin.commit(Truncate("shop.events"))

        following.catch_up()

        self.assert_equal(following)

    def test_a_new_column_comes_with_the_rows_that_use_it(self, origin: Origin, following: Following) -> None:
        origin.commit(item(4))
        origin.commit(AddColumn("shop.items", Column("extra", INT)))
        origin.commit(
            Insert("shop.items", {"id": "5", "extra": "55"}), Update("shop.items", {"id": "1"}, {"extra": "11"})
        )

        following.catch_up()

        wider = replace(ITEMS, columns=(*ITEMS.columns, Column("extra", INT)))
        self.assert_equal(following, wider, EVENTS)

    def test_changes_that_a_copy_shows_are_left_out(self, origin: Origin, following: Following) -> None:
        origin.commit(event(10), item(10))
        shown = following.source.current()
        origin.commit(event(11), item(11))
        copied = {**following.copied, EVENTS.id: Copied(shown)}

        batches = read(following.source, following.position, copied)

        assert values(batches, EVENTS) == ["11"]
        assert values(batches, ITEMS) == ["10", "11"]

    def test_a_snapshot_offers_the_keys_of_all_its_rows(self, origin: Origin, start: Sequence[Table]) -> None:
        pairs = table("pairs", key=("a", "b"), a=INT, note=TEXT, b=TEXT)
        origin.create(pairs)
        rows = [{"a": "1", "b": "x"}, {"a": "1", "b": "y", "note": "n"}, {"a": "2", "b": ""}]
        origin.commit(*(Insert("shop.pairs", row) for row in rows))
        source = origin.source(replace(SELECTED, tables=Selection(("shop.pairs", "shop.items"))))
        source.set_up()
        source.start().close()

        snapshot = source.snapshot()
        origin.commit(Delete("shop.pairs", {"a": "2"}), Insert("shop.pairs", {"a": "3", "b": "z"}), item(4))
        found = {each.id: keys(snapshot, each) for each in source.tables()}
        snapshot.close()

        assert found == {pairs.id: [("1", "x"), ("1", "y"), ("2", "")], ITEMS.id: [("1",), ("2",), ("3",)]}
        source.close()
        source.tear_down()
        source.close()

    def test_an_interrupted_copy_is_completed_from_another_snapshot(
        self, origin: Origin, start: Sequence[Table]
    ) -> None:
        # Rows large enough for two chunks.
        origin.commit(*(item(i, "before " * 200, None) for i in range(100, 1100)))
        source = origin.source(SELECTED)
        source.set_up()
        first = source.start()
        tables = {each.id: each for each in source.tables()}
        chunks = first.chunks(tables[ITEMS.id], None)
        sink = MemorySink(SELECTED, MemorySink.Options(url=f"memory:{uuid.uuid4()}"))
        sink.open()
        sink.prepare([tables[ITEMS.id]])
        copied = Copied(first.position, snapshot=first.note(tables[ITEMS.id]))
        sink.register({ITEMS.id: copied}, first.position)
        if len(chunks) > 1:
            sink.loader().load(chunks[0], first.read(chunks[0]))
            copied = replace(copied, chunks=frozenset({chunks[0].name}))
        first.close()
        origin.commit(*(Update("shop.items", {"id": str(i)}, {"note": "after"}) for i in range(100, 200)))
        origin.commit(*(Delete("shop.items", {"id": str(i)}) for i in range(150, 250)), item(5000), item(150))
        origin.commit(*(Update("shop.items", {"id": str(i)}, {"id": str(i - 1000)}) for i in range(1090, 1100)))

        second = source.snapshot({ITEMS.id: copied} if copied.chunks else None)
        expected = ordered(origin.rows(ITEMS))
        copied = replace(copied, position=second.position)
        sink.register({ITEMS.id: copied})
        written: Counter[str] = Counter()
        for chunk in second.chunks(tables[ITEMS.id], copied if copied.chunks else None):
            assert chunk.overlapping == bool(copied.chunks)
            sink.loader().load(chunk, second.read(chunk))
            written.update(key for read in second.read(chunk)["arrow"]() for key in read.column(0).to_pylist())
        if copied.chunks:
            sink.loader().prune(tables[ITEMS.id], second.keys(tables[ITEMS.id]))
        second.close()
        following = Following(
            origin, source, sink, first.position, {ITEMS.id: copied, EVENTS.id: Copied(source.current())}
        )
        completed = ordered(following.rows(ITEMS))
        origin.commit(Delete("shop.items", {"id": "150"}), Update("shop.items", {"id": "101"}, {"note": "later"}))
        following.catch_up()

        assert completed == expected
        assert max(written.values()) == 1
        self.assert_equal(following, ITEMS)
        source.close()
        source.tear_down()
        source.close()

    def test_current_is_at_or_after_what_has_committed(self, origin: Origin, following: Following) -> None:
        origin.commit(event(10))

        until = following.source.current()
        origin.commit(event(11))

        read_until = list(following.source.stream(following.position, following.copied, until))
        assert "10" in values(read_until, EVENTS)

    def test_status_works_beside_a_stream(self, origin: Origin, following: Following) -> None:
        origin.commit(event(10))
        stream = following.source.stream(following.position, following.copied)
        next(stream)

        status = following.source.status(following.position)

        assert status.lag_bytes > 0
        assert status.retained_bytes is None or status.retained_bytes >= 0
        following.source.stop()
        list(stream)

    def test_setting_up_and_closing_twice_is_fine(self, origin: Origin, following: Following) -> None:
        assert following.source.set_up() == []

        following.source.close()
        following.source.close()
