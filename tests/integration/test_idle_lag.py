"""What a pipeline lacks is counted, not what others wrote meanwhile."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cdcrep.changes import Batch
from cdcrep.config import load
from cdcrep.connector import Pipeline
from cdcrep.position import Position
from cdcrep.progress import LogLines
from cdcrep.selection import Selection
from cdcrep.status import examine
from cdcrep.supervise import Supervisor
from cdcrep_connectors.postgres import stream
from cdcrep_connectors.postgres.options import SourceOptions
from cdcrep_connectors.postgres.source import PostgresSource
from tests.servers.database import Database
from tests.servers.fix_postgres import every_major
from tests.servers.waiting import wait_until

OTHERS = "INSERT INTO others SELECT repeat('x', 1000) FROM generate_series(1, 1000)"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine's server take its time to answer."""
    monkeypatch.setattr(stream, "ANSWER_SECONDS", 20.0)


class Reading:
    """A source whose stream is read by a thread, without heartbeats."""

    def __init__(self, database: Database) -> None:
        pipeline = Pipeline(database.name, Selection(("public.t",)), heartbeat_seconds=3600)
        self.source = PostgresSource(pipeline, SourceOptions(url=database.url))
        self.source.set_up()
        snapshot = self.source.start()
        snapshot.close()
        self.position = snapshot.position
        self.batches: queue.Queue[Batch] = queue.Queue()
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        for batch in self.source.stream(self.position, {}):
            self.batches.put(batch)

    def lag(self) -> int:
        return self.source.status(self.position).lag_bytes

    def next_position(self) -> Position:
        position = self.batches.get(timeout=30).position
        assert position is not None
        return position

    def close(self) -> None:
        self.source.stop()
        self.thread.join()
        self.source.close()


@pytest.fixture
def reading(source_database: Database) -> Iterator[Reading]:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE others (v text)")
    reading = Reading(source_database)
    source_database.execute(OTHERS)
    wait_until(lambda: reading.lag() == 0, 30)
    yield reading
    reading.close()


@every_major
def test_what_others_write_is_no_lag_of_an_idle_stream(source_database: Database, reading: Reading) -> None:
    for _ in range(3):
        source_database.execute(OTHERS)
        assert reading.lag() == 0

    assert reading.batches.empty()


def test_what_was_received_and_is_not_applied_is_a_lag(source_database: Database, reading: Reading) -> None:
    source_database.execute("INSERT INTO t VALUES (1)")
    received = reading.next_position()
    source_database.execute(OTHERS)

    waiting = reading.lag()
    reading.position = received
    applied = reading.lag()

    assert waiting > 1_000_000
    assert applied == 0


@contextmanager
def writing(database: Database) -> Iterator[None]:
    """Let somebody write to another table all the time."""
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            database.execute(OTHERS)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_the_status_of_an_idle_pipeline_shows_no_lag_while_others_write(
    source_database: Database, tmp_path: Path
) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE others (v text)")
    path = tmp_path / "pipeline.toml"
    path.write_text(
        f'name = "{source_database.name}"\n[source]\nurl = "{source_database.url}"\n'
        f'[target]\nurl = "duckdb:///{tmp_path}/target.duckdb"\n[tables]\ninclude = ["public.t"]\n'
    )
    config = load(path)
    supervisor = Supervisor(config, events=LogLines("lag"))
    thread = threading.Thread(target=supervisor.run)
    thread.start()

    def lag() -> dict[str, float | None]:
        found = examine(config, live=supervisor.live(), sink=supervisor.sink(), source=supervisor.source())
        return dict(found["lag"])

    try:
        wait_until(lambda: str(supervisor.state) == "streaming" and lag()["bytes"] == 0, 30)
        with writing(source_database):
            assert [lag() for _ in range(5)] == [{"bytes": 0, "seconds": 0.0}] * 5
    finally:
        supervisor.stop()
        thread.join()
