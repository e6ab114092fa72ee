"""What a process left open in a PostgreSQL target, because it is stopped or cut off, does not hold its successor up."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest

from cdcrep import crashpoint
from cdcrep.connector import Chunk, Copied
from cdcrep.errors import TransientError
from cdcrep.position import Position
from cdcrep_connectors.postgres import predecessors
from tests.integration.building_changes import Recorder, make_batch, make_table
from tests.integration.postgres_target import follow, make_sink
from tests.servers.database import Database
from tests.servers.waiting import wait_until

ITEMS = make_table("items", "id integer, note text", "id")
DEADLINE = 30.0

WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def hundred(note: str) -> Recorder:
    recorder = Recorder(ITEMS)
    for i in range(100):
        recorder.insert(str(i), note)
    return recorder


def notes(database: Database) -> list[tuple[str, int]]:
    return database.execute("SELECT note, count(*) FROM items GROUP BY note")


@pytest.fixture(autouse=True)
def deaf_afterwards() -> Iterator[None]:
    yield
    crashpoint.listen(None)


def test_opening_waits_for_a_predecessor_that_is_committing(target_database: Database) -> None:
    predecessor = follow(make_sink(target_database.url), ITEMS)
    successor = make_sink(target_database.url)

    has_row = threading.Event()

    def hesitate(point: str) -> None:
        if point == "sink.before_commit":
            has_row.set()
            wait_until(lambda: target_database.execute(WAITING), DEADLINE, "a successor that waits")

    crashpoint.listen(hesitate)
    applying = threading.Thread(target=predecessor.apply, args=(make_batch("1", hundred("predecessor")),))
    applying.start()
    has_row.wait(DEADLINE)
    checkpoint = successor.open()
    applying.join(DEADLINE)

    assert checkpoint.position == "1"
    assert notes(target_database) == [("predecessor", 100)]
    successor.close()
    predecessor.close()


def test_a_predecessor_that_stands_still_before_its_commit_is_ended(
    target_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predecessors, "PATIENCE_SECONDS", 0.2)
    predecessor = follow(make_sink(target_database.url), ITEMS)
    successor = make_sink(target_database.url, transaction_timeout=3.0)
    positions = []
    crashpoint.listen(
        lambda point: positions.append(successor.open().position) if point == "sink.before_commit" else None
    )

    with pytest.raises(TransientError):
        predecessor.apply(make_batch("1", hundred("predecessor")))

    crashpoint.listen(None)
    assert positions == ["0"]
    successor.apply(make_batch("1", hundred("successor")))
    assert notes(target_database) == [("successor", 100)]
    successor.close()
    predecessor.close()


def test_an_open_piece_of_a_predecessor_does_not_hold_up_the_successor(target_database: Database) -> None:
    predecessor = follow(make_sink(target_database.url), ITEMS)
    predecessor.apply(make_batch(None, hundred("predecessor")))

    successor = make_sink(target_database.url, transaction_timeout=3.0)
    successor.open()
    successor.apply(make_batch("1", hundred("successor")))

    with pytest.raises(TransientError):
        predecessor.apply(make_batch("1", Recorder(ITEMS).insert("100", "predecessor")))
    assert notes(target_database) == [("successor", 100)]
    successor.close()
    predecessor.close()


def test_a_chunk_that_a_predecessor_is_loading_does_not_hold_up_the_successor(target_database: Database) -> None:
    predecessor = follow(make_sink(target_database.url), ITEMS)
    successor = make_sink(target_database.url, transaction_timeout=3.0)
    rows = pa.table({"id": ["1"], "note": ["predecessor"]}).to_batches()
    loader = predecessor.loader()
    loader.load(Chunk(ITEMS, "a"), {"arrow": lambda: rows})

    def stand_still() -> Iterator[pa.RecordBatch]:
        yield from pa.table({"id": ["2"], "note": ["predecessor"]}).to_batches()
        successor.open()
        successor.register({ITEMS.id: Copied(Position("5"))})

    with pytest.raises(TransientError):
        loader.load(Chunk(ITEMS, "b"), {"arrow": stand_still})

    assert notes(target_database) == []
    loader.close()
    successor.close()
    predecessor.close()


def test_sessions_that_may_not_be_ended_are_named(target_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predecessors, "PATIENCE_SECONDS", 0.1)
    role = target_database.create_role("LOGIN")
    predecessor = follow(make_sink(target_database.url), ITEMS)
    target_database.execute(f"GRANT ALL ON SCHEMA cdcrep TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA cdcrep TO {role}")
    successor = make_sink(target_database.url_as(role), transaction_timeout=0.5)
    refusals: list[TransientError] = []

    def open_meanwhile(point: str) -> None:
        if point == "sink.before_commit":
            with pytest.raises(TransientError) as refused:
                successor.open()
            refusals.append(refused.value)

    crashpoint.listen(open_meanwhile)
    predecessor.apply(make_batch("1", hundred("predecessor")))

    ((pid,),) = target_database.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'cdcrep shop'"
    )
    assert "checkpoint row of pipeline 'shop'" in refusals[0].message
    assert f"pg_terminate_backend({pid})" in (refusals[0].hint or "")
    predecessor.close()


def test_other_pipelines_are_left_alone(target_database: Database) -> None:
    theirs = make_table("theirs", "id integer, note text", "id")
    other = make_sink(target_database.url, name="shop2")
    follow(other, theirs)
    other.apply(make_batch(None, Recorder(theirs).insert("1", "x")))
    predecessor = follow(make_sink(target_database.url), ITEMS)

    successor = make_sink(target_database.url)
    successor.open()

    other.apply(make_batch("1", Recorder(theirs).insert("2", "y")))
    assert target_database.execute("SELECT id FROM theirs ORDER BY id") == [(1,), (2,)]
    other.close()
    successor.close()
    predecessor.close()
