"""Two processes of one pipeline: the second takes over, and the first, waking up, can do nothing any more."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from cdcrep.errors import DivergedError
from cdcrep_connectors.postgres.lsn import parse_lsn
from tests.crash.children import newest, running
from tests.crash.pipeline import Pipeline
from tests.servers.database import Database, RunningServer
from tests.servers.fix_postgres import DEFAULT_MAJOR, StartServer
from tests.servers.waiting import wait_until

DEADLINE = 60.0

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


@pytest.mark.crash
@pytest.mark.timeout(300)
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
            wait_until(lambda: target_database.execute(WAITING) == [(1,)], DEADLINE, "a commit that waits")
            write(source, 3, 4, 5)
            goal = newest(pipeline)
            wait_until(lambda: received(source) >= goal, DEADLINE, "more changes in the first one's hands")
            first.process.send_signal(signal.SIGSTOP)

        with running(pipeline, CDCREP_RUNTIME_DIR=str(elsewhere)) as second:
            write(source, 6)
            second.until(lambda: replicated(target_database) == [1, 2, 3, 4, 5, 6], "the second took over")
            first.process.send_signal(signal.SIGCONT)
            code = first.process.wait(timeout=DEADLINE)
            write(source, 7)
            second.until(lambda: 7 in replicated(target_database), "the second goes on")
            second.run_on(0)

    assert code == DivergedError.exit_code
    assert "fenced" in first.logged
    assert replicated(target_database) == [1, 2, 3, 4, 5, 6, 7]
