"""The hand-over merges what waits, keeps pieces of one transaction together, and never loses a failure."""

from __future__ import annotations

import threading

import pytest

from cdcrep import handover as handover_module
from cdcrep.changes import Batch
from cdcrep.errors import TransientError
from cdcrep.handover import Handover
from cdcrep.position import Position
from cdcrep.testing.contract_data import batch as make_batch
from cdcrep.testing.contract_data import inserted, table
from tests.servers.waiting import DEADLINE_SECONDS


def batch(position: str | None, *, size: int = 1) -> Batch:
    return Batch(Position(position) if position else None, transactions=1, size=size)


def test_batches_that_wait_become_one_with_the_last_position() -> None:
    handover = Handover(max_rows=10, max_bytes=10)
    for position in ("a", "b", "c"):
        handover.put(batch(position))

    taken = handover.take()

    assert taken is not None
    assert (taken.position, taken.transactions, taken.size) == ("c", 3, 3)


def test_merging_stops_at_the_bound_in_bytes() -> None:
    handover = Handover(max_rows=10, max_bytes=10)
    handover.put(batch("a", size=6))
    handover.put(batch("b", size=4))
    released = threading.Thread(target=lambda: handover.put(batch("c", size=1)))
    released.start()

    first = handover.take()
    released.join(timeout=DEADLINE_SECONDS)
    second = handover.take()

    assert first is not None
    assert second is not None
    assert (first.position, second.position) == ("b", "c")


def test_a_batch_larger_than_the_bound_passes_alone() -> None:
    handover = Handover(max_rows=10, max_bytes=10)
    handover.put(batch("a", size=1000))

    taken = handover.take()

    assert taken is not None
    assert taken.size == 1000


def test_finished_transactions_do_not_wait_for_the_pieces_behind_them() -> None:
    handover = Handover(max_rows=10, max_bytes=10)
    for position in ("a", None, None, "b", "c"):
        handover.put(batch(position))

    positions = [taken.position for taken in (handover.take(), handover.take(), handover.take()) if taken]

    assert positions == ["a", "b", "c"]


def test_a_failure_is_raised_after_what_was_put_before_it() -> None:
    handover = Handover(max_rows=10, max_bytes=10)
    handover.put(batch("a"))
    handover.fail(TransientError("gone"))

    first = handover.take()

    assert first is not None
    with pytest.raises(TransientError, match="gone"):
        handover.take()


def test_closing_releases_a_thread_that_waits_for_room() -> None:
    handover = Handover(max_rows=10, max_bytes=1)
    handover.put(batch("a"))
    outcome: list[bool] = []
    waiting = threading.Thread(target=lambda: outcome.append(handover.put(batch("b"))))
    waiting.start()

    handover.close()
    waiting.join(timeout=DEADLINE_SECONDS)

    assert outcome == [False]
    assert handover.take() is None


def test_taking_after_the_end_returns_nothing() -> None:
    handover = Handover(max_rows=10, max_bytes=10)
    handover.put(batch("a"))
    handover.finish()

    assert handover.take() is not None
    assert handover.take() is None


def resting(handover: Handover, after: Batch) -> threading.Thread:
    thread = threading.Thread(target=handover.rest, args=(after,), daemon=True)
    thread.start()
    return thread


@pytest.fixture
def for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover_module, "REST_SECONDS", 10 * DEADLINE_SECONDS)


@pytest.mark.usefixtures("for_ever")
def test_what_follows_a_small_batch_waits_until_more_is_wanted() -> None:
    handover = Handover(max_rows=10, max_bytes=10)
    handover.put(batch("a"))
    thread = resting(handover, batch("a"))
    handover.take()
    was_resting = thread.is_alive()

    wanting = threading.Thread(target=handover.take, daemon=True)
    wanting.start()
    thread.join(DEADLINE_SECONDS)

    assert was_resting
    assert not thread.is_alive()
    handover.close()
    wanting.join(DEADLINE_SECONDS)


@pytest.mark.usefixtures("for_ever")
def test_closing_ends_a_rest() -> None:
    handover = Handover(max_rows=10, max_bytes=10)
    thread = resting(handover, batch("a"))

    handover.close()
    thread.join(DEADLINE_SECONDS)

    assert not thread.is_alive()


@pytest.mark.usefixtures("for_ever")
def test_nothing_waits_behind_many_rows() -> None:
    rows = (inserted(table("items"), str(i), None, None) for i in range(handover_module.FEW_ROWS + 1))
    thread = resting(Handover(max_rows=10, max_bytes=10), make_batch(1, *rows))

    thread.join(DEADLINE_SECONDS)

    assert not thread.is_alive()
