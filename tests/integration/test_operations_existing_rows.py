"""Target tables that hold rows before the first copy: refused, replaced or kept, as configured."""

from __future__ import annotations

from pathlib import Path

import duckdb
import psycopg
import pytest

from cdcrep.errors import SetupError
from tests.crash.children import command
from tests.crash.pipeline import Pipeline
from tests.servers.database import Database

TABLE = "CREATE TABLE t (id bigint PRIMARY KEY, v text)"
THEIRS = "INSERT INTO t VALUES (1, 'theirs'), (9, 'theirs')"


@pytest.fixture(params=["postgresql", "duckdb"])
def pipeline(request: pytest.FixtureRequest, tmp_path: Path, source_database: Database) -> Pipeline:
    """A pipeline that has not run, into a target whose table holds rows of somebody else."""
    source_database.execute(TABLE)
    source_database.execute("INSERT INTO t VALUES (1, 'ours'), (2, 'ours')")
    if request.param == "duckdb":
        with duckdb.connect(tmp_path / "target.duckdb") as file:
            file.execute(f"CREATE SCHEMA IF NOT EXISTS public; USE public; {TABLE}; {THEIRS}")
        return Pipeline.create(tmp_path, source_database, f"duckdb:///{tmp_path / 'target.duckdb'}", ("t",))
    target: Database = request.getfixturevalue("target_database")
    target.execute(TABLE)
    target.execute(THEIRS)
    return Pipeline.create(tmp_path, source_database, target.url, ("t",))


def bookkeeping(pipeline: Pipeline) -> list[tuple[object, ...]]:
    """Return the target's schema `cdcrep`, if it is there."""
    query = "SELECT schema_name FROM information_schema.schemata WHERE schema_name = 'cdcrep'"
    if pipeline.target_url.startswith("duckdb:"):
        with duckdb.connect(pipeline.target_url.removeprefix("duckdb:///"), read_only=True) as file:
            return file.execute(query).fetchall()
    with psycopg.connect(pipeline.target_url) as connection:
        return connection.execute(query).fetchall()


def test_rows_of_somebody_else_are_refused_and_nothing_is_left_at_either_side(pipeline: Pipeline) -> None:
    ended = command(pipeline, "run", "--until-current")

    assert ended.code == SetupError.exit_code, ended.output
    assert "public.t" in ended.output
    assert 'on_existing = "replace"' in ended.output
    assert pipeline.target_rows("t") == [("1", "theirs"), ("9", "theirs")]
    assert bookkeeping(pipeline) == []
    assert (
        pipeline.source.execute(
            "SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database() "
            "UNION ALL SELECT pubname::text FROM pg_publication"
        )
        == []
    )


def test_a_source_that_is_not_ready_leaves_the_target_as_it_was(pipeline: Pipeline) -> None:
    pipeline.source.execute("ALTER TABLE t DROP CONSTRAINT t_pkey")

    ended = command(pipeline, "run", "--until-current", "--set", "tables.on_existing=replace")

    assert ended.code == SetupError.exit_code, ended.output
    assert "public.t has no primary key" in ended.output
    assert pipeline.target_rows("t") == [("1", "theirs"), ("9", "theirs")]
    assert bookkeeping(pipeline) == []


@pytest.mark.parametrize(
    ("on_existing", "rows"),
    [
        ("replace", [("1", "ours"), ("2", "ours"), ("3", "streamed")]),
        ("keep", [("1", "ours"), ("2", "ours"), ("3", "streamed"), ("9", "theirs")]),
    ],
)
def test_rows_of_somebody_else_are_replaced_or_kept_when_asked(
    pipeline: Pipeline, on_existing: str, rows: list[tuple[str, str]]
) -> None:
    asked = ("--set", f"tables.on_existing={on_existing}")

    first = command(pipeline, "run", "--until-current", *asked)
    pipeline.source.execute("INSERT INTO t VALUES (3, 'streamed')")
    # The second run must not take our own rows for somebody else's, nor empty them again.
    second = command(pipeline, "run", "--until-current", *asked)

    assert (first.code, second.code) == (0, 0), first.output + second.output
    assert pipeline.target_rows("t") == rows
