"""Replication payloads become batches of whole transactions, or pieces of one large transaction."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import pytest

from cdcrep.changes import Batch
from cdcrep.connector import Copied
from cdcrep.errors import DataError
from cdcrep.table import TableId
from cdcrep_connectors.postgres.batches import BatchAssembler, Bounds
from cdcrep_connectors.postgres.lsn import format_position, parse_position
from tests.properties.pgoutput_messages import (
    begin,
    commit,
    frames,
    insert,
    keepalive,
    logical_message,
    make_relation,
    make_table,
    relation_message,
    truncate,
    xlog,
)

RELATION = make_relation()
ROOMY = Bounds(1000, 1 << 20, 1 << 20)
TABLE = TableId("public", RELATION.name)


def position(lsn: int) -> str:
    return format_position(7, 1, lsn)


def assembler(after: int = 0, bounds: Bounds = ROOMY, copied: dict[TableId, Copied] | None = None) -> BatchAssembler:
    return BatchAssembler(make_table, after, copied or {}, bounds, lambda lsn: format_position(7, 1, lsn))


def transaction(lsn: int, *ids: int) -> list[bytes]:
    """A transaction whose commit record is at `lsn` and ends 5 later."""
    rows = [insert(RELATION.oid, [str(n), "v"]) for n in ids]
    return [xlog(m) for m in [begin(lsn), relation_message(RELATION), *rows, commit(lsn, lsn + 5, 1.5e9)]]


def ids(batches: Sequence[Batch]) -> list[list[str]]:
    return [[i for changes in batch.changes for i in changes.new.column("id").to_pylist()] for batch in batches]


def lsns(batches: Sequence[Batch]) -> list[int | None]:
    return [None if batch.position is None else parse_position(batch.position).lsn for batch in batches]


def feed(taker: BatchAssembler, payloads: Sequence[bytes], bite: int) -> list[Batch]:
    """Hand over payloads as a reader does that gets `bite` of them at a time."""
    batches: list[Batch] = []
    kept: list[bytes] = []
    for at in range(0, len(payloads), bite):
        known = len(kept)
        kept += payloads[at : at + bite]
        more, consumed = taker.take(frames(kept, known))
        batches += more
        kept = kept[consumed:]
    return batches


def test_whole_transactions_that_arrived_together_are_one_batch_at_the_last_ones_end() -> None:
    (batch,), consumed = assembler().take(frames([*transaction(10, 1, 2), *transaction(20, 3), xlog(begin(30))]))

    assert consumed == 9
    assert (lsns([batch]), ids([batch]), batch.transactions) == ([25], [["1", "2", "3"]], 2)
    assert batch.commit_time == 1.5e9


@pytest.mark.parametrize("bite", [1, 2, 3, 5])
def test_a_transaction_is_complete_however_it_arrives(bite: int) -> None:
    payloads = [*transaction(10, 1, 2), *transaction(20, 3), *transaction(30, 4, 5, 6)]

    batches = feed(assembler(), payloads, bite)

    assert list(chain(*ids(batches))) == ["1", "2", "3", "4", "5", "6"]
    assert lsns(batches)[-1] == 35
    assert None not in lsns(batches)


def test_transactions_that_the_target_holds_are_skipped_and_counted() -> None:
    taker = assembler(after=25)

    (batch,), _ = taker.take(frames([*transaction(10, 1), *transaction(20, 2), *transaction(25, 3)]))

    assert ids([batch]) == [["3"]]
    assert taker.skipped_transactions == 2
    assert not taker.deduplicating


def test_while_only_known_transactions_come_the_stream_is_deduplicating() -> None:
    taker = assembler(after=25)

    assert taker.take(frames(transaction(10, 1)))[0] == []
    assert taker.deduplicating


def test_what_a_known_transaction_truncated_is_skipped_with_it() -> None:
    messages = [begin(10), relation_message(RELATION), truncate(RELATION.oid), commit(10, 15)]

    batches = feed(assembler(after=25), [*map(xlog, messages), *transaction(30, 1)], 100)

    assert [[changes.truncated for changes in batch.changes] for batch in batches] == [[False]]
    assert ids(batches) == [["1"]]


def test_a_large_transaction_that_the_target_holds_is_skipped_while_it_arrives() -> None:
    taker = assembler(after=25, bounds=Bounds(3, 1 << 20, 100))
    # The relation was named in the skipped one and is not named again.
    known = [xlog(message) for message in [begin(30), insert(RELATION.oid, ["12", "v"]), commit(30, 35)]]

    batches = feed(taker, [*transaction(20, *range(2, 12)), *known], 3)

    assert ids(batches) == [["12"]]
    assert taker.skipped_transactions == 1


@pytest.mark.parametrize("bite", [1, 3, 100])
def test_a_transaction_larger_than_the_bounds_comes_in_pieces_of_its_own(bite: int) -> None:
    payloads = [*transaction(10, 1), *transaction(20, *range(2, 12)), *transaction(30, 12)]

    batches = feed(assembler(bounds=Bounds(3, 1 << 20, 100)), payloads, bite)

    assert lsns(batches) == [15, *[None] * (len(batches) - 3), 25, 35]
    assert len(batches) > 5
    assert list(chain(*ids(batches))) == [str(n) for n in range(1, 13)]
    assert max(map(len, ids(batches))) <= 3
    assert [batch.transactions for batch in batches] == [1, *[0] * (len(batches) - 3), 1, 1]


def test_bytes_bound_a_batch_too() -> None:
    payloads = [payload for n in range(10) for payload in transaction(10 * n + 10, n)]
    bounds = Bounds(1000, 2 * len(b"".join(transaction(10, 1))) + 40, 1 << 20)

    batches = feed(assembler(bounds=bounds), payloads, 100)

    assert len(batches) == 5
    assert [batch.transactions for batch in batches] == [2] * 5


def test_an_unfinished_transaction_is_held_without_a_batch() -> None:
    taker = assembler(bounds=Bounds(1000, 1 << 20, 50))
    payloads = transaction(10, 1, 2, 3)

    assert feed(taker, payloads[:-1], 1) == []
    (batch,), _ = taker.take(frames(payloads[-1:]))

    assert ids([batch]) == [["1", "2", "3"]]
    assert batch.position == position(15)
    assert batch.transactions == 1


def test_a_copy_is_not_changed_by_what_it_shows() -> None:
    taker = assembler(copied={TABLE: Copied(format_position(7, 1, 25))})

    batches = feed(taker, [*transaction(10, 1), *transaction(20, 2), *transaction(30, 3)], 100)

    assert ids(batches) == [["3"]]
    assert lsns(batches) == [35]


def test_a_copy_skips_pieces_too() -> None:
    taker = assembler(bounds=Bounds(2, 1 << 20, 50), copied={TABLE: Copied(format_position(7, 1, 15))})

    batches = feed(taker, [*transaction(10, *range(9)), *transaction(20, 10)], 1)

    assert ids(batches) == [["10"]]


def test_an_empty_transaction_is_reached_without_a_batch() -> None:
    taker = assembler()

    assert taker.take(frames([xlog(begin(10)), xlog(commit(10, 15))]))[0] == []
    assert taker.reached == 15


def test_a_keepalive_moves_an_idle_stream_and_no_other() -> None:
    taker = assembler()

    taker.take(frames([keepalive(100)]))
    assert (taker.reached, taker.received) == (100, 100)

    taker.take(frames([xlog(begin(110)), keepalive(200)]))
    assert taker.reached == 100


def test_a_keepalive_inside_a_large_transaction_changes_nothing() -> None:
    begun, *rest = transaction(10, *range(9))
    payloads = [begun, *rest[:5], keepalive(200), *rest[5:]]

    batches = feed(assembler(bounds=Bounds(2, 1 << 20, 50)), payloads, 1)

    assert list(chain(*ids(batches))) == [str(n) for n in range(9)]
    assert lsns(batches)[-1] == 15


def test_a_keepalive_says_whether_the_server_wants_an_answer() -> None:
    taker = assembler()

    taker.take(frames([keepalive(100, reply=True)]))
    asked = taker.reply_requested
    taker.take(frames([keepalive(100, reply=True), keepalive(100)], fresh=1))

    assert asked
    assert not taker.reply_requested


def test_a_logical_message_moves_nothing() -> None:
    taker = assembler()

    batches, consumed = taker.take(frames([xlog(logical_message(), lsn=500)]))

    assert (batches, consumed, taker.reached) == ([], 1, 0)


@pytest.mark.parametrize(
    "payloads",
    [
        [b"w"],
        [keepalive(1) + b"\0"],
        [b"x" + keepalive(1)[1:]],
        [xlog(b"")],
        [*transaction(20, 1), *transaction(10, 2)],
        [xlog(begin(10)), xlog(commit(10, 10))],
    ],
)
def test_payloads_that_cannot_be_are_refused(payloads: list[bytes]) -> None:
    with pytest.raises(DataError):
        assembler().take(frames(payloads))


@pytest.mark.parametrize("bounds", [ROOMY, Bounds(2, 1 << 20, 1)], ids=["whole", "in pieces"])
@pytest.mark.parametrize("bite", [1, 3, 100])
def test_the_transactions_that_emptied_a_table_are_known(bounds: Bounds, bite: int) -> None:
    taker = assembler(bounds=bounds)
    for lsn, xid in ((10, 801), (20, 802), (30, 803)):
        first, relation, *rows, last = transaction(lsn, 1, 2, 3, 4)
        first = first[:-4] + xid.to_bytes(4, "big")
        emptied = [] if xid == 802 else [xlog(truncate(RELATION.oid))]
        feed(taker, [first, relation, *rows, *emptied, *rows, last], bite)

    assert taker.truncations == {TABLE: {801, 803}}
