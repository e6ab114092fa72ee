"""What servers 14 and 18 once sent decodes to what their tables then held."""

from __future__ import annotations

from typing import Any

import pytest

from cdcrep.changes import Batch, Changes
from cdcrep.columns import padded
from cdcrep_connectors.postgres.batches import BatchAssembler, Bounds
from cdcrep_connectors.postgres.frames import Frames, cut
from cdcrep_connectors.postgres.lsn import format_position
from tests.golden.pgoutput_capture import HERE
from tests.properties.pgoutput_messages import make_table

BIG = "x" * 3000
NOON = "2024-02-29 12:00:00+00"


def read(major: int) -> Frames:
    content = (HERE / f"pgoutput-{major}.bin").read_bytes()
    buffer = padded(content)
    start, end, after = cut(buffer, 0, len(content))
    assert after == len(content)
    return Frames(buffer, start, end)


def decode(major: int) -> Batch:
    taker = BatchAssembler(make_table, 0, {}, Bounds(1000, 1 << 20, 1 << 20), lambda lsn: format_position(1, 1, lsn))
    (batch,), _ = taker.take(read(major))
    return batch


def changes_of(batch: Batch, table: str) -> list[Changes]:
    return [changes for changes in batch.changes if changes.table.name == table]


def rows(changes: Changes) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in changes.new.to_pylist()]


@pytest.fixture(params=[14, 18])
def major(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_the_capture_holds_every_message_of_the_protocol(major: int) -> None:
    held = read(major)
    kinds = {"k" if held.buffer[at] == ord("k") else chr(held.buffer[at + 25]) for at in held.start}

    assert kinds == set("RTYIUDOMBCk")


def test_a_keyed_table_with_an_unchanged_large_value(major: int) -> None:
    (keyed,) = changes_of(decode(major), "keyed")

    assert bytes(keyed.operations) == b"IIUUD"
    assert rows(keyed) == [
        ("1", "one", BIG, "happy", NOON),
        ("2", None, "", None, None),
        ("1", "ünö", None, "happy", NOON),
        ("10", "ünö", None, "happy", NOON),
        (None, None, None, None, None),
    ]
    assert {i: mask.tolist() for i, mask in keyed.unchanged.items()} == {2: [False, False, True, True, False]}
    assert keyed.old is not None
    assert keyed.old_present is not None
    assert keyed.old_present.tolist() == [False, False, False, True, True]
    assert keyed.old.column("id").to_pylist()[3:] == ["1", "2"]


def test_a_table_with_whole_old_rows_lacks_no_value(major: int) -> None:
    (whole,) = changes_of(decode(major), "whole")
    large = "y" * 3000

    assert bytes(whole.operations) == b"IIIUD"
    assert rows(whole) == [("1", large), ("1", None), (None, None), ("2", large), (None, None)]
    assert whole.unchanged == {}
    assert whole.old is not None
    assert whole.old.to_pylist()[3:] == [{"a": "1", "b": large}, {"a": None, "b": None}]


def test_a_table_identified_by_an_index_and_then_widened(major: int) -> None:
    narrow, wide = changes_of(decode(major), "indexed")

    assert [column.name for column in narrow.table.columns] == ["k", 'quoted "name%s']
    assert rows(narrow) == [("a", "1.50"), ("b", "1.50")]
    assert narrow.old is not None
    assert narrow.old.to_pylist()[1] == {"k": "a"}
    assert rows(wide) == [("c", "0.00", None)]


def test_a_truncate_reaches_the_tables_that_cascade_reached(major: int) -> None:
    batch = decode(major)
    (parent,), (child,) = changes_of(batch, "parent"), changes_of(batch, "child")

    assert (parent.truncated, rows(parent)) == (True, [("2",), ("3",)])
    assert (child.truncated, len(child)) == (True, 0)


def test_a_table_without_columns_and_the_commits(major: int) -> None:
    batch = decode(major)

    assert [len(changes) for changes in changes_of(batch, "nothing")] == [1]
    # Up to version 14 transactions that changed nothing of ours are sent, too.
    assert batch.transactions == {14: 18, 18: 16}[major]
    assert batch.commit_time == 1704067200.0
