"""SIGKILL at random moments and at every named crash point, under load: nothing is lost, nothing is doubled.

The same judge must catch builds that are broken on purpose; a harness that passes those proves nothing.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from typing import Any

import pytest

from tests.crash.conftest import Ends
from tests.crash.pipeline import Pipeline
from tests.crash.workload import Writer, assert_gapless, writing
from tests.crash.workload_sessions import create_tables, run_script

RANDOM_KILLS: Mapping[str, int] = {
    "postgresql-to-postgresql": 36,
    "postgresql-to-duckdb": 36,
    "mysql-9.7-to-postgresql": 23,
    "mariadb-10.11-to-duckdb": 23,
    "postgresql-to-mysql-9.7": 23,
}
TIMES = float(os.environ.get("CDCREP_TEST_KILLS", "1"))
"""What these numbers are multiplied by."""
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
COPY_POINTS = ("load.before_commit", "load.after_commit")
GROWTH_POINTS = ("sink.before_growth", "sink.after_growth")
"""Of targets whose DDL is not part of a transaction."""
BROKEN_KILLS = 6
"""Not every one does harm: what a build confirmed too early must have reached the server before the kill."""


@pytest.fixture
def pipeline(ends: Ends) -> Pipeline[Any]:
    """A pipeline over the workload's tables that has not run yet."""
    create_tables(ends.source)
    return ends.pipeline()


def judge(pipeline: Pipeline[Any], writers: list[Writer], broken: str = "") -> None:
    """Let a last run become current, then compare target and source, and the ledger with what was committed."""
    assert pipeline.finish(broken=broken) == 0, pipeline.tail()
    pipeline.assert_equal()
    assert_gapless(pipeline.target_rows("ledger"), writers)


@pytest.mark.crash
@pytest.mark.parametrize(("ends", "kills"), RANDOM_KILLS.items(), indirect=["ends"], ids=RANDOM_KILLS)
def test_kills_at_random_moments_lose_and_double_nothing(pipeline: Pipeline[Any], kills: int, seed: int) -> None:
    rng = random.Random(seed)

    with writing(pipeline.source, writers=3, seed=seed) as writers:
        statuses = [pipeline.kill_at_random(rng) for _ in range(round(kills * TIMES))]

    assert set(statuses) == {-9}, f"a run ended by itself: {statuses}\n{pipeline.tail()}"
    judge(pipeline, writers)


@pytest.mark.crash
@pytest.mark.parametrize("ends", RANDOM_KILLS, indirect=True)
def test_kills_at_every_crash_point_lose_and_double_nothing(pipeline: Pipeline[Any], seed: int) -> None:
    with writing(pipeline.source, writers=2, seed=seed) as writers:
        for point in COPY_POINTS:
            assert pipeline.kill_at_point(point, 2), f"{point} was not reached\n{pipeline.tail()}"
        for point in STREAM_POINTS:
            assert pipeline.kill_at_point(point, 3), f"{point} was not reached\n{pipeline.tail()}"

    judge(pipeline, writers)


@pytest.mark.crash
@pytest.mark.parametrize("ends", ["postgresql-to-mysql-9.7"], indirect=True)
def test_kills_around_a_growing_table_lose_and_double_nothing(pipeline: Pipeline[Any], seed: int) -> None:
    with writing(pipeline.source, writers=2, seed=seed) as writers:
        assert pipeline.kill_at_point("sink.after_commit", 3), pipeline.tail()
        for number, point in enumerate(GROWTH_POINTS):
            run_script(
                pipeline.source,
                f"ALTER TABLE documents ADD COLUMN grown_{number} int;"
                f"UPDATE documents SET grown_{number} = id WHERE id % 2 = {number}",
            )
            assert pipeline.kill_at_point(point, 1), f"{point} was not reached\n{pipeline.tail()}"

    judge(pipeline, writers)


def assert_caught(broken: str, point: str, pipeline: Pipeline[Any], seed: int) -> None:
    """Kill a build that is broken on purpose where it hurts, and see the judge find what came of it."""
    with writing(pipeline.source, writers=2, seed=seed) as writers:
        kills = [pipeline.kill_at_point(point, 3, broken=broken) for _ in range(BROKEN_KILLS)]

    assert kills[0], f"nothing was killed, so nothing was proven\n{pipeline.tail()}"
    with pytest.raises(AssertionError):
        judge(pipeline, writers, broken=broken)


@pytest.mark.crash
@pytest.mark.parametrize("ends", RANDOM_KILLS, indirect=True)
def test_a_build_that_saves_the_position_in_a_second_transaction_is_caught(pipeline: Pipeline[Any], seed: int) -> None:
    assert_caught("split-position", "broken.between_rows_and_position", pipeline, seed)


@pytest.mark.crash
@pytest.mark.parametrize("ends", [name for name in RANDOM_KILLS if name.startswith("postgresql-to")], indirect=True)
def test_a_build_that_confirms_on_receipt_is_caught(pipeline: Pipeline[Any], seed: int) -> None:
    assert_caught("confirm-on-receipt", "sink.before_commit", pipeline, seed)


@pytest.mark.crash
@pytest.mark.parametrize("ends", [name for name in RANDOM_KILLS if "-9.7" in name or "-10.11" in name], indirect=True)
def test_a_build_that_saves_the_position_before_the_rows_is_caught(pipeline: Pipeline[Any], seed: int) -> None:
    assert_caught("position-first", "broken.between_position_and_rows", pipeline, seed)
