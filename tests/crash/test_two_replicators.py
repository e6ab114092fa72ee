"""Two processes of one pipeline: the second takes over, and the first, waking up, can do nothing any more."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cdcrep.errors import DivergedError
from cdcrep_connectors.postgres import occupied_slot
from cdcrep_connectors.postgres.lsn import parse_lsn
from tests.crash.children import STUBBORN, newest, running
from tests.crash.pipeline import Pipeline
from tests.integration.postgres_target import make_sink
from tests.servers.database import Database, RunningServer
from tests.servers.fault_proxy import FaultProxy
from tests.servers.fix_postgres import DEFAULT_MAJOR, StartServer
from tests.servers.waiting import wait_until

WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'cdcrep %' AND wait_event_type = 'Lock'
"""


def received(source: Database) -> int:
    """Return how far the replicator has read."""
    rows = source.execute("SELECT write_lsn::text FROM pg_stat_replication WHERE write_lsn IS NOT NULL")
    return parse_lsn(rows[0][0]) if rows else 0


def write(source: Database, *seqs: int) -> None:
    for seq in seqs:
        source.execute("INSERT INTO ledger VALUES (%s)", seq)


def replicated(target: Database) -> list[int]:
    return sorted(row[0] for row in target.execute("SELECT seq FROM ledger"))


STANDING_STILL = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'cdcrep %' AND state = 'idle in transaction'
"""


@pytest.mark.crash
def test_a_process_that_was_stopped_inside_a_transaction_does_not_hold_its_successor_up(
    own_postgres_server: StartServer, target_database: Database, tmp_path: Path
) -> None:
    server = own_postgres_server(wal_sender_timeout="2s")
    source = Database.create(RunningServer(DEFAULT_MAJOR, server.dsn))
    source.execute("CREATE TABLE ledger (seq bigint); ALTER TABLE ledger REPLICA IDENTITY FULL")
    pipeline = Pipeline.create(tmp_path, source, target_database.url, ("ledger",))

    with running(pipeline) as first:
        first.wait_for("streaming")
        with target_database.connect() as blocker:
            blocker.execute("BEGIN")
            # Not the checkpoint's row, in which an idle stream's progress would wait as well.
            blocker.execute("SELECT FROM cdcrep.tables FOR UPDATE")
            # Too many for one message: the commit is a statement of its own, which is never sent.
            source.execute("INSERT INTO ledger SELECT generate_series(1, 200)")
            wait_until(lambda: target_database.execute(WAITING) == [(1,)], what="a transaction that waits")
            first.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: target_database.execute(STANDING_STILL) == [(1,)], what="the row in its hands")

        with running(pipeline, CDCREP_RUNTIME_DIR=str(tmp_path / "elsewhere")) as second:
            second.until(lambda: replicated(target_database) == list(range(1, 201)), "the second took over", 30.0)
            first.process.send_signal(signal.SIGCONT)
            code = first.ended()
            write(source, 201)
            second.until(lambda: 201 in replicated(target_database), "the second goes on")
            second.run_on(0)

    assert code == DivergedError.exit_code
    assert replicated(target_database) == list(range(1, 202))


@pytest.mark.crash
def test_a_process_that_was_stopped_for_long_finds_itself_fenced(
    own_postgres_server: StartServer, target_database: Database, tmp_path: Path
) -> None:
    # The source lets go of a client that is silent for so long.
    server = own_postgres_server(wal_sender_timeout="2s")
    source = Database.create(RunningServer(DEFAULT_MAJOR, server.dsn))
    source.execute("CREATE TABLE ledger (seq bigint); ALTER TABLE ledger REPLICA IDENTITY FULL")
    pipeline = Pipeline.create(tmp_path, source, target_database.url, ("ledger",))
    elsewhere = tmp_path / "elsewhere"

    with running(pipeline) as first:
        first.wait_for("streaming")
        # Streamed, so that the table is known and the next small transaction is sent as one message.
        write(source, 1)
        first.until(lambda: replicated(target_database) == [1], "the first row")
        with target_database.connect() as blocker:
            blocker.execute("BEGIN")
            blocker.execute("SELECT FROM cdcrep.checkpoints FOR UPDATE")
            write(source, 2)
            wait_until(lambda: target_database.execute(WAITING) == [(1,)], what="a commit that waits")
            write(source, 3, 4, 5)
            goal = newest(pipeline)
            wait_until(lambda: received(source) >= goal, what="more changes in the first one's hands")
            first.process.send_signal(signal.SIGSTOP)

        with running(pipeline, CDCREP_RUNTIME_DIR=str(elsewhere)) as second:
            write(source, 6)
            second.until(lambda: replicated(target_database) == [1, 2, 3, 4, 5, 6], "the second took over")
            first.process.send_signal(signal.SIGCONT)
            code = first.ended()
            write(source, 7)
            second.until(lambda: 7 in replicated(target_database), "the second goes on")
            second.run_on(0)

    assert code == DivergedError.exit_code
    assert "fenced" in first.logged
    assert replicated(target_database) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.crash
def test_a_stopped_process_does_not_keep_the_slot_from_its_successor(
    own_postgres_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tenth of what a user waits.
    monkeypatch.setattr(occupied_slot, "SILENCE_SECONDS", 2.0)
    # The source never lets go of a client that is silent.
    server = own_postgres_server(wal_sender_timeout="0")
    source = Database.create(RunningServer(DEFAULT_MAJOR, server.dsn))
    source.execute("CREATE TABLE ledger (seq bigint); ALTER TABLE ledger REPLICA IDENTITY FULL")
    target = Database.create(RunningServer(DEFAULT_MAJOR, server.dsn))
    pipeline = Pipeline.create(tmp_path, source, target.url, ("ledger",))
    settings = pipeline.config.read_text()
    pipeline.config.write_text(settings.replace("[source]", "checkpoint_interval = 0.5\n[source]", 1))

    with running(pipeline) as first:
        first.wait_for("streaming")
        first.process.send_signal(signal.SIGSTOP)
        write(source, 1)

        pipeline.catch_up()

        assert replicated(target) == [1]
        first.process.send_signal(signal.SIGCONT)
        code = first.ended()

    assert code == DivergedError.exit_code
    assert replicated(target) == [1]


def epoch(target: Database) -> int:
    return int(target.execute("SELECT epoch FROM cdcrep.checkpoints")[0][0])


@pytest.mark.crash
@pytest.mark.parametrize("replaced", [False, True], ids=["alone", "replaced meanwhile"])
def test_a_process_that_did_not_hear_of_its_reopening_goes_on_unless_it_was_replaced(
    source_database: Database,
    target_database: Database,
    fault_proxy: Callable[[str], FaultProxy],
    tmp_path: Path,
    replaced: bool,
) -> None:
    source_database.execute("CREATE TABLE ledger (seq bigint); ALTER TABLE ledger REPLICA IDENTITY FULL")
    pipeline = Pipeline.create(tmp_path, source_database, target_database.url, ("ledger",))
    proxy = fault_proxy(target_database.url)

    with running(pipeline, *STUBBORN, "--set", f"target.url={proxy.url(target_database.url)}") as first:
        first.wait_for("streaming")
        before = epoch(target_database)
        proxy.drop_reply_to(b"INSERT INTO cdcrep.checkpoints")
        proxy.cut()
        write(source_database, 1)
        wait_until(lambda: epoch(target_database) > before, what="an opening whose answer is lost")
        if not replaced:
            first.until(lambda: replicated(target_database) == [1], "the first goes on")
            first.run_on(0)
            return
        proxy.refuse()
        successor = make_sink(target_database.url, source_database.name)
        successor.open("successor")
        proxy.refuse(False)
        write(source_database, 2)
        code = first.ended()

    assert code == DivergedError.exit_code
    assert "fenced" in first.logged
    assert successor.status()["owner"] == "successor"
    successor.close()
