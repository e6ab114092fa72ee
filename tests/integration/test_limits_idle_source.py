"""What a replicator costs its source: log that others write is released, a slow target costs no connection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cdcrep_connectors.postgres.lsn import parse_lsn
from tests.crash.children import newest, running
from tests.crash.pipeline import Pipeline
from tests.servers.database import Database, RunningServer
from tests.servers.fix_postgres import DEFAULT_MAJOR, StartServer
from tests.servers.waiting import wait_until

MEGABYTE = 1 << 20
WRITTEN = 2 << 30
MOST_RETAINED = 64 * MEGABYTE
LOCKED_SECONDS = 8

SLOT = """
SELECT restart_lsn::text, confirmed_flush_lsn::text, pg_current_wal_lsn()::text
FROM pg_replication_slots WHERE slot_name LIKE 'cdcrep_%'
"""


def retained(source: Database) -> tuple[int, int]:
    """Return the bytes of log that lie behind the slot's oldest need and behind its confirmed position."""
    restart, confirmed, now = map(parse_lsn, source.execute(SLOT)[0])
    return now - restart, now - confirmed


def fill(database: Database, size: int, between: Callable[[], None]) -> None:
    """Write so much log into a table that nobody follows, and do something between its transactions."""
    database.execute("CREATE TABLE unpublished (v text); ALTER TABLE unpublished ALTER v SET STORAGE EXTERNAL")
    start = parse_lsn(database.execute("SELECT pg_current_wal_lsn()::text")[0][0])
    while parse_lsn(database.execute("SELECT pg_current_wal_lsn()::text")[0][0]) - start < size:
        database.execute(
            "INSERT INTO unpublished SELECT repeat('x', 100000) FROM generate_series(1, 500); TRUNCATE unpublished"
        )
        between()


@pytest.mark.crash
@pytest.mark.slow
def test_log_that_others_write_is_released(own_postgres_server: StartServer, tmp_path: Path) -> None:
    server = RunningServer(DEFAULT_MAJOR, own_postgres_server(max_wal_size="256MB").dsn)
    source, other = Database.create(server), Database.create(server)
    source.execute("CREATE TABLE t (id bigint PRIMARY KEY)")
    pipeline = Pipeline.create(tmp_path, source, f"duckdb:///{tmp_path / 'target.duckdb'}", ("t",))

    # While much is written, no confirmation waits for the clock.
    with running(pipeline, "--set", "checkpoint_interval=3600") as busy:
        busy.wait_for("streaming")

        def wait_for_confirmation() -> None:
            busy.until(lambda: retained(source)[1] < MOST_RETAINED, "a confirmed position that follows")

        for database in (source, other):
            fill(database, WRITTEN // 2, wait_for_confirmation)
    with running(pipeline) as idle:
        source.execute("CHECKPOINT")
        idle.until(lambda: max(retained(source)) < MOST_RETAINED, "a slot that retains little")
        written = newest(pipeline)

    assert written > WRITTEN


@pytest.mark.crash
def test_a_blocked_target_does_not_cost_the_connection(
    own_postgres_server: StartServer, target_database: Database, tmp_path: Path
) -> None:
    server = own_postgres_server(wal_sender_timeout="2s", log_replication_commands="on")
    source = Database.create(RunningServer(DEFAULT_MAJOR, server.dsn))
    source.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text)")
    pipeline = Pipeline.create(tmp_path, source, target_database.url, ("t",))

    with running(pipeline) as run:
        run.wait_for("streaming")
        with target_database.connect() as blocker:
            blocker.execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
            source.execute("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 100000) i")
            blocker.execute(f"SELECT pg_sleep({LOCKED_SECONDS})")
        rows = source.execute("SELECT count(*) FROM t")
        wait_until(lambda: target_database.execute("SELECT count(*) FROM t") == rows, what="all rows")
        run.run_on(0)

    log = server.log_text()
    assert log.count("received replication command: START_REPLICATION") == 1
    assert "replication timeout" not in log
    assert "retrying" not in run.logged
