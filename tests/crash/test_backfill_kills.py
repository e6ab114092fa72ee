"""`cdcrep backfill`: a copy made once, resumed after a kill, with nothing left behind at the source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import psycopg
import pytest

from tests.crash.children import command
from tests.crash.pipeline import Pipeline
from tests.servers.database import Database

ROWS = 200_000
SMALL_CHUNKS = ("--set", "source.chunk_bytes=1048576")


@pytest.fixture(params=["postgresql", "duckdb"])
def pipeline(request: pytest.FixtureRequest, tmp_path: Path, source_database: Database) -> Pipeline:
    """A pipeline over one table of some twenty chunks, into a target of either kind."""
    source_database.execute(
        "CREATE TABLE big (id bigint PRIMARY KEY, v text);"
        f"INSERT INTO big SELECT i, repeat('x', 60) FROM generate_series(1, {ROWS}) i"
    )
    if request.param == "duckdb":
        return Pipeline.create(tmp_path, source_database, f"duckdb:///{tmp_path / 'target.duckdb'}", ("big",))
    target: Database = request.getfixturevalue("target_database")
    return Pipeline.create(tmp_path, source_database, target.url, ("big",))


def left_behind(database: Database) -> Sequence[object]:
    """Return slots and publications of a database."""
    return database.execute(
        "SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database() "
        "UNION ALL SELECT pubname::text FROM pg_publication"
    )


def chunks(pipeline: Pipeline) -> int:
    """Count the chunks that the target remembers."""
    query = "SELECT coalesce(sum(chunks), 0)::bigint FROM cdcrep.backfill"
    if pipeline.target_url.startswith("duckdb:"):
        with duckdb.connect(pipeline.target_url.removeprefix("duckdb:///"), read_only=True) as file:
            row = file.execute(query).fetchone()
    else:
        with psycopg.connect(pipeline.target_url) as connection:
            row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def same(pipeline: Pipeline) -> bool:
    return pipeline.source_rows("big") == pipeline.target_rows("big")


@pytest.mark.crash
def test_a_backfill_leaves_nothing_at_the_source(pipeline: Pipeline) -> None:
    ended = command(pipeline, "backfill")

    assert ended.code == 0, ended.output
    assert same(pipeline)
    assert left_behind(pipeline.source) == []


@pytest.mark.crash
def test_a_killed_backfill_keeps_its_finished_chunks(pipeline: Pipeline) -> None:
    killed = command(pipeline, "backfill", *SMALL_CHUNKS, CDCREP_CRASH_AT="load.after_commit:12")
    durable = chunks(pipeline)
    pipeline.source.execute("UPDATE big SET v = 'new' WHERE id % 1000 = 0; DELETE FROM big WHERE id % 1000 = 1")
    again = command(pipeline, "backfill", *SMALL_CHUNKS)

    assert (killed.code, again.code) == (-9, 0), again.output
    assert durable >= 12
    assert f"rows={ROWS}" not in again.output
    assert same(pipeline)
    assert left_behind(pipeline.source) == []


@pytest.mark.crash
@pytest.mark.parametrize("point", ["engine.before_tear_down", "engine.before_forget"])
def test_a_backfill_that_is_killed_while_it_tidies_up_is_completed_by_the_next(pipeline: Pipeline, point: str) -> None:
    killed = command(pipeline, "backfill", CDCREP_CRASH_AT=point)
    pipeline.source.execute(
        "UPDATE big SET v = 'new' WHERE id % 1000 = 0; DELETE FROM big WHERE id % 1000 = 1;"
        "INSERT INTO big VALUES (-1, 'meanwhile')"
    )
    again = command(pipeline, "backfill")

    assert (killed.code, again.code) == (-9, 0), again.output
    assert f"rows={ROWS}" not in again.output
    assert same(pipeline)
    assert left_behind(pipeline.source) == []
