"""Connections break in the worst moments, under load: around COMMIT at the target, anywhere at the source."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.children import STUBBORN, Running, running
from tests.crash.pipeline import Pipeline
from tests.crash.test_kills import judge
from tests.crash.workload import writing
from tests.crash.workload_sessions import create_tables
from tests.servers.database import Database
from tests.servers.fault_proxy import FaultProxy

COMMITS = 8
CUTS = 24
LONGEST_CUT = 100_000


def until_reconnected(run: Running, proxy: FaultProxy, before: int, after: str) -> None:
    run.until(lambda: proxy.connections_seen > before, f"a new connection after {after}")


@pytest.mark.crash
@pytest.mark.parametrize("lost", ["the reply", "the request"])
def test_a_connection_lost_during_commit_loses_and_doubles_nothing(
    source_database: Database,
    target_database: Database,
    fault_proxy: Callable[[str], FaultProxy],
    tmp_path: Path,
    seed: int,
    lost: str,
) -> None:
    create_tables(source_database)
    pipeline = Pipeline.create(tmp_path, source_database, target_database.url)
    proxy = fault_proxy(target_database.url)
    through_proxy = ("--set", f"target.url={proxy.url(target_database.url)}")

    with writing(source_database, writers=2, seed=seed) as writers, running(pipeline, *STUBBORN, *through_proxy) as run:
        run.wait_for("streaming")
        for _ in range(COMMITS):
            run.wait_for_progress()
            before = proxy.connections_seen
            drop = proxy.drop_reply_to if lost == "the reply" else proxy.drop_request
            drop(b"COMMIT")
            until_reconnected(run, proxy, before, f"{lost} of COMMIT was dropped")
        run.wait_for_progress()
        run.run_on(0)

    judge(pipeline, writers)


@pytest.mark.crash
def test_a_source_connection_that_breaks_anywhere_loses_and_doubles_nothing(
    source_database: Database, fault_proxy: Callable[[str], FaultProxy], tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    create_tables(source_database)
    pipeline = Pipeline.create(tmp_path, source_database, f"duckdb:///{tmp_path / 'target.duckdb'}")
    proxy = fault_proxy(source_database.url)
    through_proxy = ("--set", f"source.url={proxy.url(source_database.url)}")

    with writing(source_database, writers=2, seed=seed) as writers, running(pipeline, *STUBBORN, *through_proxy) as run:
        for _ in range(CUTS):
            run.wait_for_progress()
            before, reply_bytes = proxy.connections_seen, int(LONGEST_CUT ** rng.random())
            proxy.cut_after(reply_bytes)
            until_reconnected(run, proxy, before, f"a break after {reply_bytes} bytes")
        run.wait_for_progress()
        run.run_on(0)

    judge(pipeline, writers)
