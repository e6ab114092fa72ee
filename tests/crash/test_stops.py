"""SIGTERM at any moment: a quick, orderly end, and the next run goes on as if nothing had been."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.crash.children import Running, command, running
from tests.crash.pipeline import Pipeline
from tests.crash.test_kills import judge
from tests.crash.workload import writing
from tests.crash.workload_sessions import create_tables
from tests.servers.database import Database

STOPS = int(os.environ.get("CDCREP_TEST_STOPS", "12"))
STOP_SECONDS = 5.0


@pytest.fixture(params=["postgresql", "duckdb"])
def pipeline(request: pytest.FixtureRequest, tmp_path: Path, source_database: Database) -> Pipeline:
    """A pipeline over the workload's tables into a target of either kind."""
    create_tables(source_database)
    if request.param == "duckdb":
        return Pipeline.create(tmp_path, source_database, f"duckdb:///{tmp_path / 'target.duckdb'}")
    target: Database = request.getfixturevalue("target_database")
    return Pipeline.create(tmp_path, source_database, target.url)


def stop(run: Running) -> None:
    """Ask for an end, and check that it comes soon and in order."""
    asked = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    code = run.ended()
    seconds = time.monotonic() - asked

    assert code == 0, run.logged[-4000:]
    assert seconds < STOP_SECONDS, f"took {seconds:.1f} s\n{run.logged[-4000:]}"


@pytest.mark.crash
def test_stops_under_load_are_quick_and_lose_nothing(pipeline: Pipeline, seed: int) -> None:
    rng = random.Random(seed)

    with writing(pipeline.source, writers=2, seed=seed) as writers:
        # Half of the moments lie before streaming has begun.
        for number in range(STOPS):
            with running(pipeline) as run:
                # Before that, Python itself answers the signal.
                run.wait_for("starting")
                if number % 2:
                    run.wait_for_progress()
                run.run_on(rng.random() * 0.7)
                stop(run)

    judge(pipeline, writers)


@pytest.mark.crash
def test_a_stop_leaves_nothing_to_repeat(pipeline: Pipeline, seed: int) -> None:
    with writing(pipeline.source, writers=1, seed=seed) as writers, running(pipeline) as run:
        run.wait_for_progress()
        stop(run)

    with running(pipeline, "-v", "--until-current") as again:
        assert again.ended() == 0
    assert "deduplicating" not in again.logged
    judge(pipeline, writers)


@pytest.mark.crash
def test_a_stop_during_the_first_copy_keeps_what_was_copied(pipeline: Pipeline, seed: int) -> None:
    rng = random.Random(seed)
    pipeline.source.execute("INSERT INTO accounts SELECT i, i, repeat('x', 300) FROM generate_series(1000, 100000) i")

    with writing(pipeline.source, writers=1, seed=seed) as writers:
        for _ in range(3):
            with running(pipeline, "--set", "source.chunk_bytes=1048576") as run:
                run.wait_for("snapshotting")
                run.run_on(rng.random() * 0.3)
                stop(run)
        ended = command(pipeline, "run", "--until-current", "--set", "source.chunk_bytes=1048576")

    assert ended.code == 0, ended.output
    judge(pipeline, writers)
