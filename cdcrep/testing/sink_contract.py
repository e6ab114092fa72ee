"""What every sink promises about `apply`, as tests that run over any sink."""

# A test's name is its sentence.
# ruff: noqa: D102
from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest

from cdcrep.connector import Sink
from cdcrep.errors import CdcrepError, DivergedError, TransientError
from cdcrep.table import Column
from cdcrep.testing.contract_data import (
    FIRST,
    INT,
    LONG,
    TEXT,
    Target,
    batch,
    deleted,
    following,
    inserted,
    pipeline,
    position,
    table,
    truncated,
    updated,
)
from cdcrep.testing.memory_tables import Row, ordered

ITEMS = table("items")
EVENTS = table("events", key=(), worker=INT, what=TEXT)
PAIRS = table("pairs", key=("a", "b"), a=INT, b=TEXT, note=TEXT)
START: list[Row] = [("1", "one", "big 1"), ("2", "two", "big 2"), ("3", "three", "big 3")]
HOSTILE = (
    "select",
    'say "hi"',
    "it's",
    "50%s %(x)s",
    "a.b",
    "back\\slash",
    "semi;--colon",
    "new\nline",
    "{}$1?:name",
    "Größe ☃ 🎉",
    " blank ",
)


class SinkContract:
    """Subclass, and give it a fixture `target`; the attribute says what a database cannot do."""

    names: ClassVar[Sequence[str]] = HOSTILE
    """Those of the names in `HOSTILE` that the target can give tables and columns; it must refuse the others."""

    @pytest.fixture
    def target(self) -> Iterator[Target]:
        """Make an adapter around a fresh database."""
        raise NotImplementedError

    @pytest.fixture
    def sink(self, target: Target) -> Iterator[Sink]:
        """Give a sink that follows ITEMS with three rows and EVENTS and PAIRS with none."""
        sink = following(target.sink(pipeline()), {ITEMS: START, EVENTS: [], PAIRS: []})
        yield sink
        sink.close()
        target.close()

    def test_rows_and_position_are_durable_together(self, target: Target, sink: Sink) -> None:
        sink.apply(batch(1, inserted(ITEMS, "4", "four", None), deleted(ITEMS, *START[0])))
        sink.close()

        assert ordered(target.rows(ITEMS)) == ordered([*START[1:], ("4", "four", None)])
        again = target.sink(pipeline())
        assert again.open().position == position(1)
        again.close()

    def test_a_batch_that_is_applied_twice_leaves_the_same_rows(self, target: Target, sink: Sink) -> None:
        changes = (
            inserted(ITEMS, "4", "four", "big 4"),
            updated(ITEMS, START[0], ("1", "uno", "big 1")),
            updated(ITEMS, START[1], ("5", "two", "big 2")),
            deleted(ITEMS, *START[2]),
        )
        sink.apply(batch(1, *changes))
        once = ordered(target.rows(ITEMS))

        sink.apply(batch(1, *changes))

        assert ordered(target.rows(ITEMS)) == once
        assert once == ordered([("1", "uno", "big 1"), ("4", "four", "big 4"), ("5", "two", "big 2")])

    def test_an_empty_batch_moves_the_position(self, target: Target, sink: Sink) -> None:
        sink.apply(batch(1))

        assert sink.status()["position"] == position(1)
        assert ordered(target.rows(ITEMS)) == START

    def test_a_second_opener_fences_the_first(self, target: Target, sink: Sink) -> None:
        second = target.sink(pipeline())
        second.open()

        with pytest.raises(DivergedError):
            sink.apply(batch(1, inserted(ITEMS, "4", "four", None)))
        sink.close()

        second.apply(batch(1, inserted(ITEMS, "5", "five", None)))
        second.close()
        assert ordered(target.rows(ITEMS)) == [*START, ("5", "five", None)]

    def test_every_opening_raises_the_epoch(self, target: Target, sink: Sink) -> None:
        before = sink.status()["epoch"]
        sink.close()

        again = target.sink(pipeline())

        assert again.open().epoch > before
        again.close()

    def test_a_process_that_was_replaced_cannot_open_again(self, target: Target, sink: Sink) -> None:
        sink.close()
        epoch = sink.open("first").epoch
        sink.close()
        successor = target.sink(pipeline())
        successor.open("second", epoch)

        with pytest.raises(DivergedError):
            sink.open("first", epoch)

        assert (sink.status()["epoch"], sink.status()["owner"]) == (epoch + 1, "second")
        successor.apply(batch(1, inserted(ITEMS, "4", "four", None)))
        successor.close()

    def test_a_process_that_did_not_hear_of_its_opening_opens_again(self, target: Target, sink: Sink) -> None:
        sink.close()
        epoch = sink.open("first").epoch
        sink.close()

        again = target.sink(pipeline())

        assert again.open("first", epoch - 1).epoch == epoch + 1
        again.apply(batch(1, inserted(ITEMS, "4", "four", None)))
        again.close()

    def test_a_process_whose_pipeline_was_forgotten_does_not_begin_anew(self, sink: Sink) -> None:
        sink.close()
        epoch = sink.open("first").epoch
        sink.close()
        sink.forget()

        with pytest.raises(DivergedError):
            sink.open("first", epoch)

        assert sink.status() == {}

    def test_pieces_are_invisible_until_the_position_comes(self, target: Target, sink: Sink) -> None:
        sink.apply(batch(1, inserted(ITEMS, "4", "four", None), ends=False))
        sink.apply(batch(1, updated(ITEMS, ("4", "four", None), ("4", "vier", None)), ends=False))
        before = ordered(target.rows(ITEMS))

        sink.apply(batch(1, inserted(EVENTS, "1", "seen")))

        assert before == START
        assert ordered(target.rows(ITEMS)) == [*START, ("4", "vier", None)]
        assert target.rows(EVENTS) == [("1", "seen")]
        assert sink.status()["position"] == position(1)

    def test_closing_between_pieces_rolls_back(self, target: Target, sink: Sink) -> None:
        sink.apply(batch(1, inserted(ITEMS, "4", "four", None), ends=False))

        sink.close()

        assert ordered(target.rows(ITEMS)) == START
        again = target.sink(pipeline())
        assert again.open().position == FIRST
        again.apply(batch(1, inserted(ITEMS, "6", "six", None)))
        again.close()
        assert ordered(target.rows(ITEMS)) == [*START, ("6", "six", None)]

    def test_cancel_leaves_all_or_nothing(self, target: Target, sink: Sink) -> None:
        failures: list[BaseException] = []
        rows = [inserted(EVENTS, str(i), "x" * 50) for i in range(30_000)]

        def apply() -> None:
            try:
                sink.apply(batch(1, *rows))
            except TransientError as failure:
                failures.append(failure)

        applying = threading.Thread(target=apply)
        applying.start()
        while applying.is_alive():
            sink.cancel()
            applying.join(0.01)
        sink.close()

        again = target.sink(pipeline())
        expected = (FIRST, 0) if failures else (position(1), len(rows))
        assert (again.open().position, len(target.rows(EVENTS))) == expected
        again.close()

    def test_the_last_of_many_changes_of_a_row_wins(self, target: Target, sink: Sink) -> None:
        changes = [inserted(ITEMS, "4", "0", None)]
        changes += [updated(ITEMS, ("4", str(i), None), ("4", str(i + 1), None)) for i in range(500)]

        sink.apply(batch(1, *changes))

        assert ordered(target.rows(ITEMS)) == [*START, ("4", "500", None)]

    def test_a_row_that_comes_and_goes_in_one_batch_leaves_nothing(self, target: Target, sink: Sink) -> None:
        sink.apply(batch(1, inserted(ITEMS, "4", "four", None), deleted(ITEMS, "4", "four", None)))

        assert ordered(target.rows(ITEMS)) == START

    def test_a_row_that_is_deleted_and_inserted_again_is_the_new_one(self, target: Target, sink: Sink) -> None:
        sink.apply(batch(1, deleted(ITEMS, *START[0]), inserted(ITEMS, "1", None, None)))

        assert ordered(target.rows(ITEMS)) == ordered([("1", None, None), *START[1:]])

    def test_unchanged_cells_keep_their_values(self, target: Target, sink: Sink) -> None:
        sink.apply(batch(1, updated(ITEMS, START[0], ("1", "uno", "big 1"), unsent=["big"])))
        sink.apply(
            batch(
                2,
                inserted(ITEMS, "4", "four", LONG),
                updated(ITEMS, ("4", "four", LONG), ("4", "vier", LONG), unsent=["big"]),
                updated(ITEMS, START[1], ("2", None, "big 2"), unsent=["big"]),
            )
        )

        assert ordered(target.rows(ITEMS)) == [
            ("1", "uno", "big 1"),
            ("2", None, "big 2"),
            START[2],
            ("4", "vier", LONG),
        ]

    def test_unchanged_cells_move_with_the_key(self, target: Target, sink: Sink) -> None:
        sink.apply(batch(1, updated(ITEMS, START[0], ("9", "one", "big 1"), unsent=["big", "note"])))

        assert ordered(target.rows(ITEMS)) == [*START[1:], ("9", "one", "big 1")]

    def test_chains_and_swaps_of_keys_carry_unchanged_cells(self, target: Target, sink: Sink) -> None:
        one, two, three = START
        sink.apply(
            batch(
                1,
                updated(ITEMS, one, ("0", *one[1:]), unsent=["big"]),
                updated(ITEMS, two, ("1", *two[1:]), unsent=["big"]),
                updated(ITEMS, ("0", *one[1:]), ("2", *one[1:]), unsent=["big"]),
                updated(ITEMS, three, ("4", *three[1:]), unsent=["big", "note"]),
                inserted(ITEMS, "3", "new", "new"),
            )
        )

        assert ordered(target.rows(ITEMS)) == [
            ("1", "two", "big 2"),
            ("2", "one", "big 1"),
            ("3", "new", "new"),
            ("4", "three", "big 3"),
        ]

    def test_a_key_of_two_columns_identifies_rows(self, target: Target, sink: Sink) -> None:
        sink.apply(
            batch(1, inserted(PAIRS, "1", "a", "x"), inserted(PAIRS, "1", "b", "y"), inserted(PAIRS, "2", "a", None))
        )

        sink.apply(
            batch(
                2,
                updated(PAIRS, ("1", "a", "x"), ("1", "c", "x"), unsent=["note"]),
                updated(PAIRS, ("1", "b", "y"), ("1", "b", "z")),
                deleted(PAIRS, "2", "a", None),
            )
        )

        assert ordered(target.rows(PAIRS)) == [("1", "b", "z"), ("1", "c", "x")]

    def test_a_partial_update_of_a_missing_row_is_divergence(self, target: Target, sink: Sink) -> None:
        with pytest.raises(DivergedError):
            sink.apply(batch(1, updated(ITEMS, ("8", "x", "y"), ("8", "z", "y"), unsent=["big"])))
        sink.close()

        assert ordered(target.rows(ITEMS)) == START

    def test_a_missing_row_whose_values_are_all_known_is_written(self, target: Target, sink: Sink) -> None:
        sink.apply(
            batch(
                1,
                updated(ITEMS, ("8", "x", "y"), ("8", "z", "y")),
                updated(ITEMS, ("6", "x", "y"), ("7", "x", "y")),
                deleted(ITEMS, "9", None, None),
            )
        )

        assert ordered(target.rows(ITEMS)) == [*START, ("7", "x", "y"), ("8", "z", "y")]

    def test_truncate_empties_a_table_before_what_follows(self, target: Target, sink: Sink) -> None:
        sink.apply(batch(1, inserted(EVENTS, "1", "a"), inserted(EVENTS, "2", "b")))

        sink.apply(
            batch(2, deleted(ITEMS, *START[0]), truncated(ITEMS), inserted(ITEMS, "1", "new", None), truncated(EVENTS))
        )

        assert target.rows(ITEMS) == [("1", "new", None)]
        assert target.rows(EVENTS) == []

    def test_a_table_without_a_key_keeps_exactly_as_many_copies(self, target: Target, sink: Sink) -> None:
        sink.apply(batch(1, *[inserted(EVENTS, "1", "same")] * 3, *[inserted(EVENTS, None, None)] * 2))

        sink.apply(
            batch(
                2,
                deleted(EVENTS, "1", "same"),
                updated(EVENTS, ("1", "same"), ("2", "other")),
                deleted(EVENTS, None, None),
            )
        )

        assert ordered(target.rows(EVENTS)) == [(None, None), ("1", "same"), ("2", "other")]

    def test_removing_a_row_that_is_not_there_is_divergence(self, target: Target, sink: Sink) -> None:
        sink.apply(batch(1, inserted(EVENTS, "1", "same")))

        with pytest.raises(DivergedError):
            sink.apply(batch(2, *[deleted(EVENTS, "1", "same")] * 2))
        sink.close()

        assert target.rows(EVENTS) == [("1", "same")]

    def test_a_new_nullable_column_grows_the_target_first(self, target: Target, sink: Sink) -> None:
        wider = replace(ITEMS, columns=(*ITEMS.columns, Column("extra", INT)))

        sink.apply(batch(1, inserted(ITEMS, "4", "four", None), inserted(wider, "5", "five", None, "55")))
        sink.apply(batch(2, updated(wider, (*START[0], None), (*START[0], "11"))))

        assert ordered(target.rows(wider)) == [
            (*START[0], "11"),
            *((*row, None) for row in START[1:]),
            ("4", "four", None, None),
            ("5", "five", None, "55"),
        ]

    def test_whether_a_column_may_be_null_is_no_difference(self, target: Target, sink: Sink) -> None:
        columns = [replace(column, nullable=not column.nullable) for column in ITEMS.columns]
        other = replace(ITEMS, columns=tuple(columns))

        sink.apply(batch(1, updated(ITEMS, START[0], ("1", "uno", "big 1")), inserted(other, "4", "four", None)))
        sink.apply(batch(2, updated(other, START[1], ("2", "dos", "big 2"), unsent=["big"])))

        assert ordered(target.rows(ITEMS)) == [
            ("1", "uno", "big 1"),
            ("2", "dos", "big 2"),
            START[2],
            ("4", "four", None),
        ]

    @pytest.mark.parametrize("change", ["dropped", "not null", "other key"])
    def test_any_other_change_of_shape_stops(self, target: Target, sink: Sink, change: str) -> None:
        columns = {
            "dropped": ITEMS.columns[:2],
            "not null": (*ITEMS.columns, Column("extra", INT, nullable=False)),
            "other key": ITEMS.columns,
        }[change]
        other = replace(ITEMS, columns=columns, key=("note",) if change == "other key" else ITEMS.key)
        values = ("4", "four", "4", "4")[: len(columns)]

        with pytest.raises(CdcrepError):
            sink.apply(batch(1, inserted(other, *values)))
        sink.close()

        assert ordered(target.rows(ITEMS)) == START

    def test_columns_and_tables_of_the_target_itself_are_left_alone(self, target: Target, sink: Sink) -> None:
        try:
            target.execute("ALTER TABLE shop.items ADD COLUMN own VARCHAR DEFAULT 'mine'")
            target.execute("CREATE TABLE shop.theirs (x bigint)")
        except NotImplementedError:
            pytest.skip("the target has no SQL")
        with_own = replace(ITEMS, columns=(*ITEMS.columns, Column("own", TEXT)))

        sink.apply(
            batch(
                1,
                updated(ITEMS, START[0], ("1", "uno", "big 1")),
                updated(ITEMS, START[1], ("2", "dos", "big 2"), unsent=["big"]),
                deleted(ITEMS, *START[2]),
            )
        )

        assert ordered(target.rows(with_own)) == [("1", "uno", "big 1", "mine"), ("2", "dos", "big 2", "mine")]
        assert target.rows(table("theirs", key=(), x=INT)) == []

    def test_a_large_batch_is_one_transaction(self, target: Target, sink: Sink) -> None:
        changes = [inserted(ITEMS, str(i), f"note {i}", None) for i in range(10, 20_000)]
        changes += [updated(ITEMS, (str(i), f"note {i}", None), (str(i), "new", None)) for i in range(10, 5_000)]
        changes += [deleted(ITEMS, str(i), f"note {i}", None) for i in range(15_000, 20_000)]

        sink.apply(batch(1, *changes))

        rows = target.rows(ITEMS)
        assert len(rows) == 3 + 14_990
        assert sum(row[1] == "new" for row in rows) == 4_990

    def test_text_arrives_as_it_is(self, target: Target, sink: Sink) -> None:
        texts = ["", "\\N", "\\", "a\tb\nc\r", '"', "'", ",", "NULL", "{}", "🎉" * 1000, "\x01\x7f", " ", "\\.", LONG]

        sink.apply(batch(1, *(inserted(EVENTS, str(i), text) for i, text in enumerate(texts))))
        sink.apply(batch(2, inserted(ITEMS, "4", texts[3], texts[2])))
        sink.apply(batch(3, *(updated(ITEMS, row, (row[0], row[1], texts[1])) for row in START)))

        assert ordered(target.rows(EVENTS)) == ordered([(str(i), text) for i, text in enumerate(texts)])
        assert ordered(target.rows(ITEMS)) == [*((*row[:2], "\\N") for row in START), ("4", texts[3], texts[2])]

    def test_names_that_it_cannot_have_are_refused(self, sink: Sink) -> None:
        for name in set(HOSTILE) - set(self.names):
            assert any(obstacle.fatal for obstacle in sink.obstacles([table(name)])), name
            assert any(obstacle.fatal for obstacle in sink.obstacles([table("t", (), "shop", **{name: TEXT})])), name

    def test_names_are_only_names(self, target: Target, sink: Sink) -> None:
        sink.close()
        names = self.names
        columns = dict.fromkeys(names, TEXT)
        tables = [table(name, key=names[:2], schema=names[3], **columns) for name in names]
        row = tuple(str(i) for i in range(len(names)))
        moved = ("moved", *row[1:])

        other = following(target.sink(pipeline(names[5])), {each: [row] for each in tables})
        wider = [replace(each, columns=(*each.columns, Column("grown;'\"", TEXT))) for each in tables]
        for number, (each, grown) in enumerate(zip(tables, wider, strict=True), 1):
            other.apply(batch(number, updated(each, row, moved, unsent=[names[5]]), inserted(grown, *row, "9")))
        other.close()

        for grown in wider:
            assert ordered(target.rows(grown)) == ordered([(*row, "9"), (*moved, None)])
