"""The source or the target crashes again and again under load, while one replicator goes on by itself."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cdcrep.demo.postgres_server import PostgresServer
from tests.crash.children import STUBBORN, Running, running
from tests.crash.pipeline import Pipeline
from tests.crash.test_kills import judge
from tests.crash.workload import SCHEMA, writing
from tests.servers.database import Database, RunningServer
from tests.servers.fix_postgres import DEFAULT_MAJOR, StartServer

CRASHES = 10


def crash_again_and_again(server: PostgresServer, run: Running, rng: random.Random) -> None:
    for _ in range(CRASHES):
        run.wait_for_progress()
        run.run_on(rng.random() * 0.5)
        server.restart("immediate")
    run.wait_for_progress()
    run.run_on(0)


@pytest.mark.crash
def test_a_source_that_crashes_loses_and_doubles_nothing(
    own_postgres_server: StartServer, tmp_path: Path, seed: int
) -> None:
    server = own_postgres_server()
    source = Database.create(RunningServer(DEFAULT_MAJOR, server.dsn))
    source.execute(SCHEMA)
    pipeline = Pipeline.create(tmp_path, source, f"duckdb:///{tmp_path / 'target.duckdb'}")

    with writing(source, writers=2, seed=seed) as writers, running(pipeline, *STUBBORN) as run:
        crash_again_and_again(server, run, random.Random(seed))

    judge(pipeline, writers)


@pytest.mark.crash
def test_a_target_that_crashes_loses_and_doubles_nothing(
    own_postgres_server: StartServer, source_database: Database, tmp_path: Path, seed: int
) -> None:
    # A target that lets commits return before they are durable, unless a session asks for better.
    server = own_postgres_server(synchronous_commit="off", wal_writer_delay="10s")
    source_database.execute(SCHEMA)
    pipeline = Pipeline.create(tmp_path, source_database, server.url)

    with writing(source_database, writers=2, seed=seed) as writers, running(pipeline, *STUBBORN) as run:
        crash_again_and_again(server, run, random.Random(seed))

    judge(pipeline, writers)
