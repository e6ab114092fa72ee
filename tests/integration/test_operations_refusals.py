"""A run that could lose changes does not begin: it says what is missing and what to type, and changes nothing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import psycopg
import pytest

from cdcrep.errors import DivergedError
from cdcrep_connectors.postgres.lsn import format_lsn, parse_lsn, parse_position
from tests.crash.children import Ended, command, confirmed
from tests.crash.pipeline import Pipeline
from tests.servers.database import Database, RunningServer
from tests.servers.fix_postgres import DEFAULT_MAJOR, StartServer

TABLE = "CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'one')"
POSITION = "SELECT position FROM cdcrep.checkpoint"


@pytest.fixture
def pipeline(tmp_path: Path, source_database: Database) -> Pipeline:
    """A pipeline into a DuckDB file that holds one row of the first copy and one that was streamed."""
    source_database.execute(TABLE)
    pipeline = Pipeline.create(tmp_path, source_database, f"duckdb:///{tmp_path / 'target.duckdb'}", ("t",))
    pipeline.catch_up()
    source_database.execute("INSERT INTO t VALUES (2, 'two')")
    pipeline.catch_up()
    return pipeline


def position(pipeline: Pipeline) -> int:
    """Return where the target stands."""
    if pipeline.target_url.startswith("duckdb:"):
        with duckdb.connect(pipeline.target_url.removeprefix("duckdb:///"), read_only=True) as file:
            row = file.execute(POSITION).fetchone()
    else:
        with psycopg.connect(pipeline.target_url) as connection:
            row = connection.execute(POSITION).fetchone()
    assert row is not None
    return parse_position(row[0]).lsn


def at_source(database: Database) -> Sequence[object]:
    """Return the slots of a database, where they stand, and what is published."""
    return database.execute(
        "SELECT slot_name::text, confirmed_flush_lsn::text FROM pg_replication_slots "
        "WHERE database = current_database() UNION ALL SELECT pubname::text, NULL FROM pg_publication "
        "UNION ALL SELECT pubname::text, tablename::text FROM pg_publication_tables ORDER BY 1, 2"
    )


def refused(pipeline: Pipeline, *arguments: str, at: Database | None = None) -> Ended:
    """Run, and make sure that the refusal touched neither source nor target."""
    database = at or pipeline.source
    before = at_source(database), pipeline.target_rows("t"), position(pipeline)

    ended = command(pipeline, "run", "--until-current", *arguments)

    assert ended.code == DivergedError.exit_code, ended.output
    assert (at_source(database), pipeline.target_rows("t"), position(pipeline)) == before
    assert "cdcrep teardown" in ended.output
    return ended


def test_a_dropped_slot_is_named(pipeline: Pipeline) -> None:
    slot = f"cdcrep_{pipeline.source.name}"
    pipeline.source.execute("SELECT pg_drop_replication_slot(%s)", slot)
    pipeline.source.execute("INSERT INTO t VALUES (3, 'lost to the stream')")

    ended = refused(pipeline)

    assert f"the replication slot {slot!r} does not exist any more" in ended.output
    assert f"the changes after {format_lsn(position(pipeline))} are lost" in ended.output


def test_what_the_hint_says_makes_the_copy_whole_again(pipeline: Pipeline) -> None:
    pipeline.source.execute("SELECT pg_drop_replication_slot(%s)", f"cdcrep_{pipeline.source.name}")
    pipeline.source.execute("INSERT INTO t VALUES (3, 'lost to the stream')")
    refused(pipeline)

    torn_down = command(pipeline, "teardown", "--yes")
    ended = command(pipeline, "run", "--until-current", "--set", "tables.on_existing=replace")

    assert (torn_down.code, ended.code) == (0, 0), torn_down.output + ended.output
    assert pipeline.target_rows("t") == pipeline.source_rows("t")


def test_a_slot_that_was_moved_by_hand_names_the_exact_gap(pipeline: Pipeline) -> None:
    pipeline.source.execute("INSERT INTO t VALUES (3, 'skipped')")
    pipeline.source.execute(
        "SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", f"cdcrep_{pipeline.source.name}"
    )
    moved_to, stands = confirmed(pipeline), position(pipeline)

    ended = refused(pipeline)

    assert f"has moved on to {format_lsn(moved_to)}, the target stands at {format_lsn(stands)}" in ended.output
    assert f"the changes in these {moved_to - stands} bytes of log are lost" in ended.output


def test_another_server_behind_the_address_is_refused(own_postgres_server: StartServer, pipeline: Pipeline) -> None:
    other = Database.create(RunningServer(DEFAULT_MAJOR, own_postgres_server().dsn))
    other.execute(TABLE)

    ended = refused(pipeline, "--set", f"source.url={other.url}", at=other)

    assert "the server is another one than the target was filled from" in ended.output
    assert at_source(other) == []


def test_another_server_without_the_tables_is_refused_for_what_it_is(
    own_postgres_server: StartServer, pipeline: Pipeline
) -> None:
    other = Database.create(RunningServer(DEFAULT_MAJOR, own_postgres_server().dsn))

    ended = refused(pipeline, "--set", f"source.url={other.url}", at=other)

    assert "the server is another one than the target was filled from" in ended.output


def test_a_duckdb_file_restored_from_a_copy_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    file, backup = tmp_path / "target.duckdb", tmp_path / "backup.duckdb"
    shutil.copy(file, backup)
    pipeline.source.execute("INSERT INTO t VALUES (3, 'three')")
    pipeline.catch_up()
    newest = position(pipeline)
    shutil.copy(backup, file)

    ended = refused(pipeline)

    assert (
        f"has moved on to {format_lsn(newest)}, the target stands at {format_lsn(position(pipeline))}" in ended.output
    )
    assert "The target was restored to an older point" in ended.output


def test_a_postgres_target_restored_from_a_copy_is_refused(
    source_database: Database, target_database: Database, tmp_path: Path
) -> None:
    source_database.execute(TABLE)
    pipeline = Pipeline.create(tmp_path, source_database, target_database.url, ("t",))
    pipeline.catch_up()
    restored = Database(target_database.server, f"{target_database.name}_restored")
    with target_database.server.connect() as connection:
        connection.execute(f"CREATE DATABASE {restored.name} TEMPLATE {target_database.name}".encode())
    try:
        source_database.execute("INSERT INTO t VALUES (2, 'two')")
        pipeline.catch_up()

        ended = refused(replace(pipeline, target_url=restored.url), "--set", f"target.url={restored.url}")
    finally:
        restored.drop()

    assert "The target was restored to an older point" in ended.output


def test_a_source_restored_to_an_older_state_is_refused(own_postgres_server: StartServer, tmp_path: Path) -> None:
    server = own_postgres_server()
    source = Database.create(RunningServer(DEFAULT_MAJOR, server.dsn))
    source.execute(TABLE)
    pipeline = Pipeline.create(tmp_path, source, f"duckdb:///{tmp_path / 'target.duckdb'}", ("t",))
    pipeline.catch_up()
    server.stop()
    backup = server.data_directory.with_name("backup")
    subprocess.run(["cp", "-a", server.data_directory, backup], check=True)
    server.start()
    source.execute("INSERT INTO t SELECT i, 'gone at the source' FROM generate_series(2, 1000) i")
    pipeline.catch_up()
    server.stop()
    shutil.rmtree(server.data_directory)
    backup.rename(server.data_directory)
    server.start()

    ended = refused(pipeline)

    log_end = parse_lsn(source.execute("SELECT pg_current_wal_flush_lsn()::text")[0][0])
    assert log_end < position(pipeline)
    assert f"the target is ahead of the source: the checkpoint is {format_lsn(position(pipeline))}" in ended.output
    assert "The source was restored to an older point" in ended.output
