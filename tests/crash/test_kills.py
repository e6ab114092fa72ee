"""SIGKILL at random moments and at every named crash point, under load: nothing is lost, nothing is doubled.

The same judge must catch builds that are broken on purpose; a harness that passes those proves nothing.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.pipeline import Pipeline
from tests.crash.workload import SCHEMA, Writer, assert_gapless, writing
from tests.servers.database import Database

RANDOM_KILLS = int(os.environ.get("CDCREP_TEST_KILLS", "36"))
STREAM_POINTS = (
    "engine.received",
    "engine.before_apply",
    "sink.before_rows",
    "sink.after_rows",
    "sink.before_commit",
    "sink.after_commit",
    "engine.before_confirm",
    "engine.after_confirm",
)
BROKEN_KILLS = 6
"""Not every one does harm: what a build confirmed too early must have reached the server before the kill."""
COPY_POINTS = ("load.before_commit", "load.after_commit")

Target = Callable[[], str]


@pytest.fixture(params=["postgresql", "duckdb"])
def target_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh target of either kind."""
    if request.param == "duckdb":
        return f"duckdb:///{tmp_path / 'target.duckdb'}"
    database: Database = request.getfixturevalue("target_database")
    return database.url


@pytest.fixture
def pipeline(tmp_path: Path, source_database: Database, target_url: str) -> Pipeline:
    """A pipeline over the workload's tables that has not run yet."""
    source_database.execute(SCHEMA)
    return Pipeline.create(tmp_path, source_database, target_url)


def judge(pipeline: Pipeline, writers: list[Writer], broken: str = "") -> None:
    """Let a last run become current, then compare target and source, and the ledger with what was committed."""
    assert pipeline.finish(broken=broken) == 0, pipeline.tail()
    pipeline.assert_equal()
    assert_gapless(pipeline.target_rows("ledger"), writers)


@pytest.mark.crash
def test_kills_at_random_moments_lose_and_double_nothing(pipeline: Pipeline, seed: int) -> None:
    rng = random.Random(seed)

    with writing(pipeline.source, writers=3, seed=seed) as writers:
        statuses = [pipeline.kill_at_random(rng) for _ in range(RANDOM_KILLS)]

    assert set(statuses) == {-9}, f"a run ended by itself: {statuses}\n{pipeline.tail()}"
    judge(pipeline, writers)


@pytest.mark.crash
def test_kills_at_every_crash_point_lose_and_double_nothing(pipeline: Pipeline, seed: int) -> None:
    with writing(pipeline.source, writers=2, seed=seed) as writers:
        for point in COPY_POINTS:
            assert pipeline.kill_at_point(point, 2), f"{point} was not reached\n{pipeline.tail()}"
        for point in STREAM_POINTS:
            assert pipeline.kill_at_point(point, 3), f"{point} was not reached\n{pipeline.tail()}"

    judge(pipeline, writers)


def assert_caught(broken: str, point: str, pipeline: Pipeline, seed: int) -> None:
    """Kill a build that is broken on purpose where it hurts, and see the judge find what came of it."""
    with writing(pipeline.source, writers=2, seed=seed) as writers:
        kills = [pipeline.kill_at_point(point, 3, broken=broken) for _ in range(BROKEN_KILLS)]

    assert kills[0], f"nothing was killed, so nothing was proven\n{pipeline.tail()}"
    with pytest.raises(AssertionError):
        judge(pipeline, writers, broken=broken)


@pytest.mark.crash
def test_a_build_that_saves_the_position_in_a_second_transaction_is_caught(pipeline: Pipeline, seed: int) -> None:
    assert_caught("split-position", "broken.between_rows_and_position", pipeline, seed)


@pytest.mark.crash
def test_a_build_that_confirms_on_receipt_is_caught(pipeline: Pipeline, seed: int) -> None:
    assert_caught("confirm-on-receipt", "sink.before_commit", pipeline, seed)
