"""The source or the target crashes again and again under load, while one replicator goes on by itself."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash.children import STUBBORN, running
from tests.crash.conftest import own_schema
from tests.crash.pipeline import Pipeline
from tests.crash.test_kills import judge
from tests.crash.workload import writing
from tests.crash.workload_sessions import create_tables
from tests.integration.mysql_following import database_on
from tests.servers.database import Database, RunningServer
from tests.servers.fix_mysql import StartMySQL
from tests.servers.fix_postgres import DEFAULT_MAJOR, StartServer

CRASHES = 10
CRASHES_PER_RELEASE = CRASHES // 2


def survive(pipeline: Pipeline[Any], crash: Callable[[], None], seed: int, crashes: int = CRASHES) -> None:
    """Crash a server again and again beside writers and one replicator, and judge what is in the target."""
    rng = random.Random(seed)
    create_tables(pipeline.source)

    with writing(pipeline.source, writers=2, seed=seed) as writers, running(pipeline, *STUBBORN) as run:
        run.wait_for("streaming")
        for _ in range(crashes):
            run.wait_for_progress()
            run.run_on(rng.random() * 0.5)
            crash()
        run.wait_for_progress()
        run.run_on(0)

    judge(pipeline, writers)


@pytest.mark.crash
def test_a_source_that_crashes_loses_and_doubles_nothing(
    own_postgres_server: StartServer, tmp_path: Path, seed: int
) -> None:
    server = own_postgres_server()
    source = Database.create(RunningServer(DEFAULT_MAJOR, server.dsn))
    pipeline = Pipeline.create(tmp_path, source, f"duckdb:///{tmp_path / 'target.duckdb'}")

    survive(pipeline, lambda: server.restart("immediate"), seed)


@pytest.mark.crash
def test_a_target_that_crashes_loses_and_doubles_nothing(
    own_postgres_server: StartServer, source_database: Database, tmp_path: Path, seed: int
) -> None:
    # A target that lets commits return before they are durable, unless a session asks for better.
    server = own_postgres_server(synchronous_commit="off", wal_writer_delay="10s")
    pipeline = Pipeline.create(tmp_path, source_database, server.url)

    survive(pipeline, lambda: server.restart("immediate"), seed)


@pytest.mark.crash
@pytest.mark.parametrize("release", ["mysql-9.7", "mariadb-10.11"])
def test_a_mysql_source_that_crashes_loses_and_doubles_nothing(
    own_mysql_server: StartMySQL, target_database: Database, tmp_path: Path, release: str, seed: int
) -> None:
    server = own_mysql_server(release)
    pipeline = Pipeline.create(tmp_path, database_on(server), target_database.url)

    survive(pipeline, lambda: server.restart(crash=True), seed, CRASHES_PER_RELEASE)


@pytest.mark.crash
@pytest.mark.parametrize("release", ["mysql-9.7", "mariadb-11.8"])
def test_a_mysql_target_that_crashes_loses_and_doubles_nothing(
    own_mysql_server: StartMySQL, source_database: Database, tmp_path: Path, release: str, seed: int
) -> None:
    server = own_mysql_server(release)
    schema = own_schema(source_database)
    pipeline = Pipeline.create(tmp_path, source_database, server.url, schema=schema)

    survive(pipeline, lambda: server.restart(crash=True), seed, CRASHES_PER_RELEASE)
