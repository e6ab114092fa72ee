"""Tables without columns: PostgreSQL holds as many rows as the source, DuckDB cannot hold them and says so at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cdcrep.errors import SetupError
from tests.crash.children import command
from tests.crash.pipeline import Pipeline
from tests.integration.end_to_end import Place, Replicated
from tests.servers.database import Database, RunningServer

TABLES = """
CREATE TABLE nothing ();
ALTER TABLE nothing REPLICA IDENTITY FULL;
INSERT INTO nothing SELECT FROM generate_series(1, 300);
CREATE TABLE items (id int PRIMARY KEY);
INSERT INTO items VALUES (1);
"""

STEPS = (
    ("INSERT INTO nothing DEFAULT VALUES", 301),
    ("INSERT INTO nothing SELECT FROM generate_series(1, 500)", 801),
    ("DELETE FROM nothing WHERE ctid IN (SELECT ctid FROM nothing LIMIT 120)", 681),
    (
        "BEGIN; INSERT INTO nothing SELECT FROM generate_series(1, 100);"
        "DELETE FROM nothing WHERE ctid IN (SELECT ctid FROM nothing LIMIT 250); COMMIT",
        531,
    ),
    ("DELETE FROM nothing", 0),
    ("BEGIN; INSERT INTO nothing DEFAULT VALUES; TRUNCATE nothing; INSERT INTO nothing DEFAULT VALUES; COMMIT", 1),
    ("ALTER TABLE nothing ADD a int; INSERT INTO nothing VALUES (1), (1), (2); DELETE FROM nothing WHERE a = 1", 2),
)
"""Changes, and how many rows they leave."""


@pytest.mark.parametrize("place", ["postgresql-14", "postgresql-18"])
def test_postgresql_holds_as_many_rows_as_the_source(
    place: Place, source_database: Database, tmp_path: Path, postgres_server: Callable[[int], RunningServer]
) -> None:
    replicated = Replicated.into(place, source_database, tmp_path, postgres_server)
    source_database.execute(TABLES)
    replicated.catch_up()
    counts = [replicated.run_on_target("SELECT count(*) FROM nothing")]

    for change, _ in STEPS:
        source_database.execute(change)
        replicated.catch_up()
        counts.append(replicated.run_on_target("SELECT count(*) FROM nothing"))

    assert counts == [[(300,)], *([(left,)] for _, left in STEPS)]
    replicated.assert_equal()
    replicated.close()


@pytest.mark.parametrize("words", [["check"], ["run", "--until-current"]], ids=["check", "run"])
def test_duckdb_refuses_them_by_name_and_goes_on_without_them(
    source_database: Database, tmp_path: Path, words: list[str]
) -> None:
    source_database.execute(TABLES)
    pipeline = Pipeline.create(
        tmp_path, source_database, f"duckdb:///{tmp_path / 'target.duckdb'}", ("nothing", "items")
    )

    refused = command(pipeline, *words)
    left_at_source = source_database.execute(
        "SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database() "
        "UNION ALL SELECT pubname::text FROM pg_publication"
    )
    accepted = command(pipeline, *words, "--set", 'tables.exclude=["public.nothing"]')

    assert refused.code == SetupError.exit_code
    assert "public.nothing: DuckDB cannot hold a table without columns" in refused.output
    assert 'add "public.nothing" to exclude in [tables]' in refused.output
    assert left_at_source == []
    assert accepted.code == 0, accepted.output


def test_check_is_content_with_them_for_a_postgresql_target(
    source_database: Database, target_database: Database, tmp_path: Path
) -> None:
    source_database.execute(TABLES)

    checked = command(Pipeline.create(tmp_path, source_database, target_database.url, ("nothing",)), "check")

    assert checked.code == 0, checked.output
