"""What every sink promises about the first copy and its bookkeeping, as tests that run over any sink."""

# A test's name is its sentence; a fixture may be requested for its effect.
# ruff: noqa: ARG002, D102
from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cdcrep.connector import Chunk, Copied, Sink
from cdcrep.errors import CdcrepError, DivergedError, SetupError, TransientError
from cdcrep.table import Column, Table
from cdcrep.testing.contract_data import (
    FIRST,
    INT,
    TEXT,
    Target,
    arrow,
    batch,
    following,
    inserted,
    pipeline,
    position,
    table,
)
from cdcrep.testing.memory_tables import Row, ordered

ITEMS = table("items")
EVENTS = table("events", key=(), worker=INT, what=TEXT)
KEYS = table("items", id=INT)
ROWS: list[Row] = [("1", "one", "big 1"), ("2", "two", None)]
MORE: list[Row] = [("3", "three", "big 3")]


class SinkCopyContract:
    """Subclass, and give it a fixture `target`."""

    @pytest.fixture
    def target(self) -> Iterator[Target]:
        """Make an adapter around a fresh database."""
        raise NotImplementedError

    @pytest.fixture
    def sink(self, target: Target) -> Iterator[Sink]:
        """Give a sink that has begun to copy ITEMS and EVENTS."""
        sink = target.sink(pipeline(source="acme://db/shop"))
        sink.open()
        sink.prepare([ITEMS, EVENTS])
        sink.register({ITEMS.id: Copied(FIRST, snapshot="note"), EVENTS.id: Copied(FIRST)}, FIRST)
        yield sink
        sink.close()
        target.close()

    def test_a_new_pipeline_has_no_position(self, target: Target) -> None:
        sink = target.sink(pipeline())

        checkpoint = sink.open()

        assert checkpoint.position is None
        assert checkpoint.tables == {}
        sink.close()
        target.close()

    def test_a_chunk_is_durable_with_its_name(self, target: Target, sink: Sink) -> None:
        loader = sink.loader()
        rows, size = loader.load(Chunk(ITEMS, "a"), arrow(ITEMS, ROWS))
        loader.close()
        sink.close()

        assert ordered(target.rows(ITEMS)) == ROWS
        assert rows == len(ROWS)
        assert size > 0
        again = target.sink(pipeline())
        checkpoint = again.open()
        again.close()
        assert checkpoint.position == FIRST
        assert checkpoint.tables[ITEMS.id] == Copied(FIRST, snapshot="note", chunks=frozenset({"a"}))
        assert not checkpoint.tables[EVENTS.id].chunks

    def test_an_interrupted_copy_is_completed_to_the_rows_of_the_second_position(
        self, target: Target, sink: Sink
    ) -> None:
        load(sink, Chunk(ITEMS, "a"), [*ROWS, ("4", "deleted meanwhile", None)])
        sink.close()
        again = target.sink(pipeline())
        before = again.open().tables[ITEMS.id]

        later = replace(before, position=position(5))
        again.register({ITEMS.id: later})
        load(again, Chunk(ITEMS, "b", overlapping=True), [("2", "newer", "big 2"), *MORE])
        prune(again, ITEMS, [("1",), ("2",), ("3",)])
        again.finish([ITEMS.id])
        again.close()

        assert ordered(target.rows(ITEMS)) == [ROWS[0], ("2", "newer", "big 2"), *MORE]
        last = target.sink(pipeline())
        checkpoint = last.open()
        last.close()
        assert checkpoint.position == FIRST
        assert checkpoint.tables[ITEMS.id] == replace(later, done=True, chunks=frozenset({"a", "b"}))
        assert not checkpoint.tables[EVENTS.id].done

    def test_rows_whose_key_is_not_offered_are_pruned(self, target: Target, sink: Sink) -> None:
        pairs = table("pairs", key=("a", "b"), a=INT, note=TEXT, b=TEXT)
        kept: list[Row] = [("1", None, "x"), ("2", "note", "y"), ("3", "note", "")]
        sink.prepare([pairs])
        sink.register({pairs.id: Copied(FIRST)})
        load(sink, Chunk(pairs, "a"), [*kept, ("1", "other b", "y"), ("2", None, "x"), ("4", None, "x")])
        load(sink, Chunk(ITEMS, "a"), ROWS)

        removed = prune(sink, pairs, [("3", ""), ("2", "y"), ("1", "x"), ("9", "never copied")])

        assert removed == 3
        assert ordered(target.rows(pairs)) == kept
        assert ordered(target.rows(ITEMS)) == ROWS

    def test_pruning_twice_and_pruning_everything_is_fine(self, target: Target, sink: Sink) -> None:
        load(sink, Chunk(ITEMS, "a"), ROWS)
        loader = sink.loader()

        first = [loader.prune(ITEMS, arrow(KEYS, [("2",)])) for _ in range(2)]
        before = target.rows(ITEMS)
        last = loader.prune(ITEMS, arrow(KEYS, []))
        loader.close()

        assert (first, before) == ([1, 0], ROWS[1:])
        assert (last, target.rows(ITEMS)) == (1, [])

    def test_completing_a_copy_leaves_columns_of_the_target_itself_alone(self, target: Target, sink: Sink) -> None:
        try:
            target.execute("ALTER TABLE shop.items ADD COLUMN own VARCHAR DEFAULT 'mine'")
        except NotImplementedError:
            pytest.skip("the target has no SQL")
        load(sink, Chunk(ITEMS, "a"), ROWS)
        target.execute("UPDATE shop.items SET own = 'changed' WHERE id = 2")

        load(sink, Chunk(ITEMS, "b", overlapping=True), [("2", "newer", "big 2"), *MORE])
        prune(sink, ITEMS, [("2",), ("3",)])

        with_own = replace(ITEMS, columns=(*ITEMS.columns, Column("own", TEXT)))
        assert ordered(target.rows(with_own)) == [("2", "newer", "big 2", "changed"), (*MORE[0], "mine")]

    def test_pruning_that_fails_leaves_every_row(self, target: Target, sink: Sink) -> None:
        def broken() -> Iterator[object]:
            yield from arrow(KEYS, [("1",)])["arrow"]()
            raise TransientError("the source was lost")

        load(sink, Chunk(ITEMS, "a"), ROWS)
        loader = sink.loader()
        with pytest.raises(TransientError):
            loader.prune(ITEMS, {"arrow": broken})
        loader.close()

        assert ordered(target.rows(ITEMS)) == ROWS

    def test_a_copy_that_begins_again_begins_with_an_empty_table(self, target: Target, sink: Sink) -> None:
        load(sink, Chunk(EVENTS, "a"), [("1", "x"), ("1", "x")])

        sink.register({EVENTS.id: Copied(position(3))})
        before = target.rows(EVENTS)
        load(sink, Chunk(EVENTS, "a"), [("2", "y")])

        assert before == []
        assert target.rows(EVENTS) == [("2", "y")]

    def test_a_load_that_fails_leaves_nothing(self, target: Target, sink: Sink) -> None:
        def broken() -> Iterator[object]:
            yield from arrow(ITEMS, ROWS)["arrow"]()
            raise TransientError("the source was lost")

        loader = sink.loader()
        with pytest.raises(TransientError):
            loader.load(Chunk(ITEMS, "a"), {"arrow": broken})
        loader.close()

        assert target.rows(ITEMS) == []
        load(sink, Chunk(ITEMS, "a"), ROWS)
        assert ordered(target.rows(ITEMS)) == ROWS

    def test_loaders_work_side_by_side(self, target: Target, sink: Sink) -> None:
        failures: list[BaseException] = []

        def work(worker: int) -> None:
            try:
                for i in range(4):
                    load(sink, Chunk(EVENTS, f"{worker}/{i}"), [(str(worker), str(n)) for n in range(50)])
            except BaseException as failure:
                failures.append(failure)

        workers = [threading.Thread(target=work, args=(worker,)) for worker in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

        assert failures == []
        assert len(target.rows(EVENTS)) == 3 * 4 * 50

    def test_a_second_opener_fences_loaders_too(self, target: Target, sink: Sink) -> None:
        loader = sink.loader()
        load(sink, Chunk(ITEMS, "a"), ROWS)
        second = target.sink(pipeline())
        second.open()

        with pytest.raises(DivergedError):
            loader.load(Chunk(ITEMS, "b"), arrow(ITEMS, MORE))
        with pytest.raises(DivergedError):
            loader.prune(ITEMS, arrow(KEYS, []))
        loader.close()
        second.close()

        assert ordered(target.rows(ITEMS)) == ROWS

    def test_a_released_table_is_forgotten_and_keeps_its_rows(self, target: Target, sink: Sink) -> None:
        load(sink, Chunk(ITEMS, "a"), ROWS)

        sink.release([ITEMS.id])
        sink.close()

        again = target.sink(pipeline())
        assert list(again.open().tables) == [EVENTS.id]
        again.close()
        assert ordered(target.rows(ITEMS)) == ROWS

    def test_a_table_that_was_dropped_in_the_target_is_copied_anew(self, target: Target, sink: Sink) -> None:
        load(sink, Chunk(ITEMS, "a"), ROWS)
        load(sink, Chunk(EVENTS, "a"), [("1", "x")])
        sink.finish([ITEMS.id, EVENTS.id])
        sink.apply(batch(1, inserted(ITEMS, *MORE[0])))
        sink.close()

        target.drop(ITEMS)
        again = target.sink(pipeline())
        checkpoint = again.open()
        # Often it was dropped because it could not follow a change of its shape.
        items = table("items", id=INT, count=INT)
        again.prepare([items])
        again.register({items.id: Copied(position(1))})
        load(again, Chunk(items, "a"), [("1", "10")])
        again.finish([items.id])
        again.apply(batch(2, inserted(items, "2", "20"), inserted(EVENTS, "2", "y")))
        again.close()

        assert checkpoint.position == position(1)
        assert list(checkpoint.tables) == [EVENTS.id]
        assert ordered(target.rows(items)) == [("1", "10"), ("2", "20")]
        assert ordered(target.rows(EVENTS)) == [("1", "x"), ("2", "y")]

    def test_a_table_that_is_gone_while_it_is_followed_stops_the_sink(self, target: Target, sink: Sink) -> None:
        target.drop(ITEMS)

        with pytest.raises((DivergedError, SetupError)) as stopped:
            sink.apply(batch(1, inserted(ITEMS, *MORE[0])))
        assert "start again" in (stopped.value.hint or "")

    def test_preparing_twice_does_nothing_the_second_time(self, target: Target, sink: Sink) -> None:
        assert sink.prepare([ITEMS, EVENTS]) == []
        assert target.rows(ITEMS) == []

    @pytest.mark.parametrize("existing", ["refuse", "replace", "keep"])
    def test_tables_that_hold_rows_are_treated_as_asked(self, target: Target, sink: Sink, existing: str) -> None:
        load(sink, Chunk(ITEMS, "a"), ROWS)
        sink.close()
        other = target.sink(pipeline("other", on_existing=existing))
        other.open()

        if existing == "refuse":
            assert any(obstacle.fatal for obstacle in other.obstacles([ITEMS]))
            with pytest.raises(SetupError):
                other.prepare([ITEMS])
        else:
            assert not any(obstacle.fatal for obstacle in other.obstacles([ITEMS]))
            other.prepare([ITEMS])
        other.close()

        assert ordered(target.rows(ITEMS)) == ([] if existing == "replace" else ROWS)

    def test_names_that_differ_in_case_are_kept_apart_or_refused(self, target: Target, sink: Sink) -> None:
        shouted = replace(ITEMS, name="ITEMS")
        both = [shouted, table("cases", id=INT, Id=TEXT)]

        refused = any(obstacle.fatal for obstacle in sink.obstacles([ITEMS, *both]))
        try:
            sink.prepare([ITEMS, *both])
        except SetupError:
            assert refused
            return
        sink.register({each.id: Copied(FIRST) for each in both})
        load(sink, Chunk(shouted, "a"), MORE)

        assert target.rows(ITEMS) == []
        assert target.rows(shouted) == MORE

    def test_pipelines_in_one_target_do_not_disturb_each_other(self, target: Target, sink: Sink) -> None:
        theirs = table("theirs")
        other = following(target.sink(pipeline("other")), {theirs: ROWS})

        other.apply(batch(7, inserted(theirs, *MORE[0])))
        sink.apply(batch(1, inserted(ITEMS, *MORE[0])))

        assert (sink.status()["position"], other.status()["position"]) == (position(1), position(7))
        other.forget()
        other.close()
        sink.apply(batch(2))
        assert sink.status()["position"] == position(2)
        assert ordered(target.rows(theirs)) == [*ROWS, *MORE]

    def test_status_tells_how_far_it_is(self, target: Target, sink: Sink) -> None:
        load(sink, Chunk(ITEMS, "a"), ROWS)
        sink.finish([ITEMS.id])
        sink.apply(batch(1, inserted(ITEMS, *MORE[0]), inserted(EVENTS, "1", "x")))

        status = sink.status()

        assert status["position"] == position(1)
        assert status["transactions"] == 1
        assert status["rows"] == 2
        assert status["commit_time"] == pytest.approx(1_700_000_001.0)
        assert status["updated_at"] > 1_700_000_000
        assert status["tables"] == {
            "shop.items": {"rows_copied": 2, "changes_applied": 1, "copy_done": True},
            "shop.events": {"rows_copied": 0, "changes_applied": 1, "copy_done": False},
        }

    def test_the_checkpoint_names_the_source_that_was_opened_last(self, target: Target, sink: Sink) -> None:
        before = sink.status()["source"]
        sink.close()

        again = target.sink(pipeline(source="acme://other/shop"))
        again.open()
        again.close()

        assert (before, again.status()["source"]) == ("acme://db/shop", "acme://other/shop")

    def test_status_of_an_unknown_pipeline_is_empty(self, target: Target, sink: Sink) -> None:
        assert target.sink(pipeline("unknown")).status() == {}

    def test_status_does_not_take_the_row(self, target: Target, sink: Sink) -> None:
        target.sink(pipeline()).status()

        sink.apply(batch(1))

        assert sink.status()["position"] == position(1)

    def test_a_query_shows_one_commit_and_says_which(self, target: Target, sink: Sink) -> None:
        load(sink, Chunk(ITEMS, "a"), ROWS)
        sink.apply(batch(1, inserted(ITEMS, *MORE[0])))
        sink.apply(batch(2, inserted(ITEMS, "4", None, None), ends=False))

        answer = sink.query("select * from shop.items")

        assert answer.position == position(1)
        assert answer.commit_time == pytest.approx(1_700_000_001.0)
        assert answer.data.num_rows == 3

    def test_a_query_cannot_write(self, target: Target, sink: Sink) -> None:
        with pytest.raises(CdcrepError):
            sink.query("create table shop.written (x int)")

    def test_a_detached_target_has_interrupted_copies_and_no_position(self, target: Target, sink: Sink) -> None:
        load(sink, Chunk(ITEMS, "a"), ROWS)
        load(sink, Chunk(EVENTS, "a"), [("1", "x")])
        sink.finish([ITEMS.id, EVENTS.id])
        sink.apply(batch(1, inserted(ITEMS, *MORE[0])))

        sink.detach()
        sink.close()

        again = target.sink(pipeline())
        checkpoint = again.open()
        assert checkpoint.position is None
        assert checkpoint.tables[ITEMS.id] == Copied(FIRST, snapshot="note", chunks=frozenset({"a"}))
        assert ordered(target.rows(ITEMS)) == [*ROWS, *MORE]
        again.register({ITEMS.id: replace(checkpoint.tables[ITEMS.id], position=position(7))}, position(7))
        again.apply(batch(8, inserted(ITEMS, "4", None, None)))
        again.close()
        assert ordered(target.rows(ITEMS)) == [*ROWS, *MORE, ("4", None, None)]

    def test_a_fenced_process_detaches_nothing(self, target: Target, sink: Sink) -> None:
        second = target.sink(pipeline())
        second.open()

        with pytest.raises(DivergedError):
            sink.detach()
        sink.close()

        assert second.status()["position"] == FIRST
        second.close()

    def test_forgetting_twice_is_fine_and_leaves_the_tables(self, target: Target, sink: Sink) -> None:
        load(sink, Chunk(ITEMS, "a"), ROWS)

        assert sink.forget()
        assert sink.forget() == []
        sink.close()

        assert ordered(target.rows(ITEMS)) == ROWS
        again = target.sink(pipeline())
        assert again.status() == {}
        assert again.open().position is None
        again.close()

    def test_closing_twice_or_before_opening_is_fine(self, target: Target, sink: Sink) -> None:
        target.sink(pipeline("never")).close()

        sink.close()
        sink.close()


def load(sink: Sink, chunk: Chunk, rows: list[Row]) -> None:
    """Load a chunk on a loader of its own."""
    loader = sink.loader()
    try:
        loader.load(chunk, arrow(chunk.table, rows))
    finally:
        loader.close()


def prune(sink: Sink, table: Table, keys: list[Row]) -> int:
    """Delete the rows with other keys, on a loader of its own."""
    loader = sink.loader()
    try:
        return loader.prune(table, arrow(replace(table, columns=table.identity), keys))
    finally:
        loader.close()
