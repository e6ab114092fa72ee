"""Faults of the memory pair happen where they are asked for, and nowhere else."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from itertools import islice

import pytest

from cdcrep.errors import TransientError
from cdcrep.testing.contract_data import FIRST, batch, following, inserted, pipeline, position, table
from cdcrep.testing.memory import Insert, MemorySink, MemorySource, SourceDatabase, TargetDatabase, Update
from tests.servers.waiting import DEADLINE_SECONDS

ITEMS = table("items")


@pytest.fixture
def url() -> str:
    return f"memory:{uuid.uuid4()}"


@pytest.fixture
def sink(url: str) -> Iterator[MemorySink]:
    sink = MemorySink(pipeline(), MemorySink.Options(url=url))
    following(sink, {ITEMS: []})
    yield sink
    sink.close()


def test_an_error_before_the_commit_leaves_nothing(sink: MemorySink, url: str) -> None:
    sink.database.failures[2] = "before commit"
    sink.apply(batch(1, inserted(ITEMS, "1", None, None)))

    with pytest.raises(TransientError):
        sink.apply(batch(2, inserted(ITEMS, "2", None, None)))

    assert sink.open().position == position(1)
    assert TargetDatabase.at(url).rows("shop.items") == [("1", None, None)]


def test_a_lost_acknowledgement_leaves_everything(sink: MemorySink, url: str) -> None:
    sink.database.failures[1] = "after commit"

    with pytest.raises(TransientError):
        sink.apply(batch(1, inserted(ITEMS, "1", None, None)))

    assert sink.open().position == position(1)
    assert TargetDatabase.at(url).rows("shop.items") == [("1", None, None)]


def test_a_target_that_hangs_can_be_cancelled(sink: MemorySink) -> None:
    sink.database.failures[1] = "hang"
    failures: list[BaseException] = []

    def apply() -> None:
        try:
            sink.apply(batch(1, inserted(ITEMS, "1", None, None)))
        except TransientError as failure:
            failures.append(failure)

    thread = threading.Thread(target=apply)
    thread.start()
    sink.cancel()
    thread.join(DEADLINE_SECONDS)

    assert len(failures) == 1
    assert sink.open().position == FIRST


def test_a_stream_breaks_after_as_many_batches_as_asked(url: str) -> None:
    database = SourceDatabase.at(url)
    database.create(ITEMS)
    source = MemorySource(pipeline(), MemorySource.Options(url=url))
    start = source.start().position
    for i in range(3):
        database.commit(Insert("shop.items", {"id": str(i)}))
    database.failures[:] = [2, 0]

    broken = source.stream(start, {}, source.current())
    assert [each.rows for each in islice(broken, 2)] == [1, 1]
    with pytest.raises(TransientError):
        next(broken)
    with pytest.raises(TransientError):
        next(source.stream(start, {}, source.current()))
    assert len(list(source.stream(start, {}, source.current()))) == 3


def test_a_transaction_that_fails_changes_nothing(url: str) -> None:
    database = SourceDatabase.at(url)
    database.create(ITEMS)
    database.commit(Insert("shop.items", {"id": "1"}), Insert("shop.items", {"id": "2"}))
    before, log = database.rows("shop.items"), len(database.log)

    with pytest.raises(ValueError, match="exists"):
        database.commit(
            Update("shop.items", {"id": "1"}, {"note": "x"}), Update("shop.items", {"id": "1"}, {"id": "2"})
        )

    assert database.rows("shop.items") == before
    assert len(database.log) == log
    database.commit(Update("shop.items", {"id": "1"}, {"id": "3"}))


def test_a_replaced_server_has_other_positions(url: str) -> None:
    database = SourceDatabase.at(url)
    before = database.position

    database.replace()

    assert database.position != before
