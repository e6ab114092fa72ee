"""Passwords and row values stay out of everything that failing runs print, also with -v."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdcrep.errors import DataError, SetupError
from tests.crash.children import Ended, command
from tests.crash.pipeline import Pipeline
from tests.servers.database import Database
from tests.servers.fix_postgres import StartServer

PASSWORD = "p%w'd@:/?x"
ENCODED = "p%25w%27d%40%3A%2F%3Fx"
WRONG_ENCODED = "wrong%25w%27d%40%3A%2F%3Fcanary"
WRONG = "wrong%w'd@:/?canary"
CANARY = "canary4711"

OUTPUTS = pytest.mark.parametrize("log_format", ["text", "json"])


def create(directory: Path, source: Database, target_url: str) -> Pipeline:
    return Pipeline.create(directory, source, target_url, ("t",))


def run_loudly(pipeline: Pipeline, log_format: str, *arguments: str) -> Ended:
    """Run with everything printed that can be."""
    return command(pipeline, "run", "--until-current", "-v", "--log-format", log_format, *arguments)


@OUTPUTS
def test_a_password_is_never_printed(
    own_postgres_server: StartServer, source_database: Database, tmp_path: Path, log_format: str
) -> None:
    source_database.execute("CREATE TABLE t (id bigint PRIMARY KEY)")
    server = own_postgres_server(password=PASSWORD)
    pipeline = create(tmp_path, source_database, server.url)
    assert ENCODED in server.url

    right = run_loudly(pipeline, log_format)
    wrong = run_loudly(pipeline, log_format, "--set", f"target.url={server.url.replace(ENCODED, WRONG_ENCODED)}")
    unknown = run_loudly(pipeline, log_format, "--set", f"target.url={server.url}_unknown")
    status = command(pipeline, "status", "--json", "-v")

    assert (right.code, wrong.code, unknown.code) == (0, SetupError.exit_code, SetupError.exit_code)
    printed = right.output + wrong.output + unknown.output + status.output
    assert "password authentication failed" in printed
    assert not [secret for secret in (PASSWORD, ENCODED, WRONG, WRONG_ENCODED) if secret in printed]


@pytest.mark.parametrize(
    "constraint",
    [
        f"ALTER TABLE t ADD CHECK (v <> '{CANARY}')",
        "ALTER TABLE t ADD UNIQUE (v)",
        "CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'not %', new.v; END $$;"
        "CREATE TRIGGER complain BEFORE INSERT ON t FOR EACH ROW WHEN (new.id > 1) EXECUTE FUNCTION complain();"
        "ALTER TABLE t ENABLE ALWAYS TRIGGER complain",
        "ALTER TABLE t ALTER v TYPE varchar(7)",
    ],
)
def test_a_value_that_a_postgres_target_refuses_is_never_printed(
    source_database: Database, target_database: Database, tmp_path: Path, constraint: str
) -> None:
    source_database.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'other')")
    pipeline = create(tmp_path, source_database, target_database.url)
    pipeline.catch_up()
    target_database.execute(constraint)
    if "UNIQUE" in constraint:
        target_database.execute(f"INSERT INTO t VALUES (-1, '{CANARY}')")
    source_database.execute(f"INSERT INTO t VALUES (2, '{CANARY}')")

    ended = run_loudly(pipeline, "text", "--set", "tables.allow_lossy=true")

    assert ended.code == DataError.exit_code, ended.output
    assert CANARY not in ended.output
    assert pipeline.target_rows("t") != pipeline.source_rows("t")


@OUTPUTS
def test_a_value_that_a_duckdb_target_cannot_hold_is_never_printed(
    source_database: Database, tmp_path: Path, log_format: str
) -> None:
    source_database.execute("CREATE TABLE t (id bigint PRIMARY KEY, v timestamp); INSERT INTO t VALUES (1, 'today')")
    pipeline = create(tmp_path, source_database, f"duckdb:///{tmp_path / 'target.duckdb'}")
    pipeline.catch_up()
    source_database.execute("INSERT INTO t VALUES (2, '294271-02-03')")

    ended = run_loudly(pipeline, log_format)

    assert ended.code == DataError.exit_code, ended.output
    assert "public.t" in ended.output
    assert "'v'" in ended.output
    assert "294271" not in ended.output


@OUTPUTS
def test_a_first_copy_that_fails_prints_no_value(
    source_database: Database, target_database: Database, tmp_path: Path, log_format: str
) -> None:
    source_database.execute(f"CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t VALUES (1, '{CANARY}')")
    target_database.execute(f"CREATE TABLE t (id bigint PRIMARY KEY, v text CHECK (v <> '{CANARY}'))")

    ended = run_loudly(create(tmp_path, source_database, target_database.url), log_format)

    assert ended.code == DataError.exit_code, ended.output
    assert CANARY not in ended.output


def test_status_after_a_failure_shows_no_value(
    source_database: Database, target_database: Database, tmp_path: Path
) -> None:
    source_database.execute(f"CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t VALUES (1, '{CANARY}')")
    target_database.execute(f"CREATE TABLE t (id bigint PRIMARY KEY, v text CHECK (v <> '{CANARY}'))")
    pipeline = create(tmp_path, source_database, target_database.url)
    run_loudly(pipeline, "text")

    status = command(pipeline, "status", "--json")

    assert '"state": "failed"' in status.output
    assert CANARY not in status.output
