"""Batches are merged without losing, doubling or reordering a change of a table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cdcrep.changes import Batch, Changes, concatenate, empty_table, merge
from cdcrep.position import Position
from cdcrep.table import Column
from cdcrep.testing.contract_data import TEXT, batch, deleted, inserted, position, table, truncated, updated
from cdcrep.testing.memory_source import columnar

ITEMS = table("items")
OTHER = table("other")
WIDER = replace(ITEMS, columns=(*ITEMS.columns, Column("extra", TEXT)))


def test_one_batch_is_its_own_merger() -> None:
    only = batch(1, inserted(ITEMS, "1", None, None))

    assert merge([only]) is only


def test_a_merged_batch_stands_where_the_last_one_stood() -> None:
    merged = merge(
        [
            replace(batch(1, inserted(ITEMS, "1", None, None)), size=10, skipped=2),
            replace(batch(2, inserted(OTHER, "1", None, None)), size=5, skipped=1),
            Batch(position(3), transactions=0),
        ]
    )

    assert merged.position == position(3)
    assert (merged.transactions, merged.size, merged.skipped, merged.rows) == (2, 15, 3, 2)
    assert merged.commit_time == 1_700_000_002.0


def test_merged_heartbeats_have_no_commit_time() -> None:
    assert merge([Batch(Position("1")), Batch(Position("2"))]) == Batch(Position("2"))


def test_changes_of_one_table_are_joined_in_order() -> None:
    merged = merge(
        [
            batch(1, inserted(ITEMS, "1", "a", None), inserted(OTHER, "9", None, None)),
            batch(2, updated(ITEMS, ("1", "a", None), ("2", "a", None), unsent=["note"])),
            batch(3, deleted(ITEMS, "2", "a", None)),
        ]
    )

    items, other = merged.changes
    assert bytes(items.operations) == b"IUD"
    assert items.new.column("id").to_pylist() == ["1", "2", None]
    assert items.old is not None
    assert items.old.column("id").to_pylist() == [None, "1", "2"]
    assert items.old_present is not None
    assert items.old_present.tolist() == [False, True, True]
    assert items.unchanged[1].tolist() == [False, True, False]
    assert len(other) == 1


def test_shapes_are_kept_apart() -> None:
    merged = merge(
        [
            batch(1, inserted(ITEMS, "1", None, None)),
            batch(2, inserted(ITEMS, "2", None, None), inserted(WIDER, "3", None, None, "x")),
            batch(3, inserted(WIDER, "4", None, None, None)),
        ]
    )

    assert [(changes.table, len(changes)) for changes in merged.changes] == [(ITEMS, 2), (WIDER, 2)]


def test_what_a_truncate_made_moot_is_left_out() -> None:
    merged = merge(
        [
            batch(1, inserted(ITEMS, "1", None, None)),
            batch(2, truncated(ITEMS), inserted(ITEMS, "2", None, None)),
            batch(3, inserted(ITEMS, "3", None, None)),
        ]
    )

    (items,) = merged.changes
    assert items.truncated
    assert items.new.column("id").to_pylist() == ["2", "3"]


def test_a_truncate_at_the_end_leaves_nothing_but_itself() -> None:
    merged = merge([batch(1, inserted(ITEMS, "1", None, None)), batch(2, truncated(ITEMS))])

    assert merged.rows == 0
    assert merged.changes[0].truncated


def test_a_truncate_and_what_follows_become_one() -> None:
    (truncate,) = columnar([truncated(ITEMS)])
    (insert,) = columnar([inserted(ITEMS, "1", None, None)])

    joined = concatenate([truncate, truncate, insert])

    assert joined.truncated
    assert len(joined) == len(joined.new) == 1


def test_truncates_alone_stay_empty() -> None:
    truncate = Changes.truncate(ITEMS)

    assert len(truncate) == len(truncate.new) == 0
    assert truncate.new.schema == empty_table(ITEMS).schema


@pytest.mark.parametrize("parts", [2, 5])
def test_joining_parts_is_joining_at_once(parts: int) -> None:
    rng = np.random.default_rng(parts)
    changes = [inserted(ITEMS, str(i), None, str(rng.integers(9))) for i in range(20)]
    changes += [updated(ITEMS, (str(i), None, None), (str(i + 50), "n", None), unsent=["big"]) for i in range(20)]
    batches = [batch(i, change) for i, change in enumerate(changes)]

    at_once = merge(batches).changes[0]
    step = len(batches) // parts
    in_steps = merge([merge(batches[i : i + step]) for i in range(0, len(batches), step)]).changes[0]

    assert in_steps.new.equals(at_once.new)
    assert in_steps.old is not None
    assert in_steps.old.equals(at_once.old)
    assert in_steps.operations.tobytes() == at_once.operations.tobytes()
    assert in_steps.unchanged[2].tolist() == at_once.unchanged[2].tolist()
