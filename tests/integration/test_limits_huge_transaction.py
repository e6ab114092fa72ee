"""A source transaction far larger than memory: applied whole, seen whole, in bounded memory."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import psycopg
import pytest

from tests.crash.children import Running, command, running
from tests.crash.pipeline import Pipeline
from tests.servers.database import Database

ROWS = 5_000_000
MOST_RSS_KIB = 400 << 10

SCHEMA = """
CREATE TABLE big (id bigint PRIMARY KEY, v text);
CREATE TABLE small (id bigint PRIMARY KEY);
"""
FILL = f"INSERT INTO big SELECT i, md5(i::text) FROM generate_series(1, {ROWS}) i"
COUNTS = "SELECT (SELECT count(*) FROM public.big), (SELECT count(*) FROM public.small)"
SUMMARY = "SELECT count(*), sum(id), min(v), max(v), count(DISTINCT id), sum(length(v)) FROM public.big"


@pytest.fixture(params=["postgresql", "duckdb"])
def pipeline(request: pytest.FixtureRequest, tmp_path: Path, source_database: Database) -> Pipeline:
    """A pipeline over two empty tables, copied, into a target of either kind."""
    source_database.execute(SCHEMA)
    if request.param == "duckdb":
        url = f"duckdb:///{tmp_path / 'target.duckdb'}"
    else:
        target: Database = request.getfixturevalue("target_database")
        url = target.url
    pipeline = Pipeline.create(tmp_path, source_database, url, ("big", "small"))
    assert command(pipeline, "run", "--until-current").code == 0
    return pipeline


def peak_rss_kib(run: Running) -> int:
    """Return the largest resident set that the process has had (Linux, proc(5), VmHWM)."""
    status = Path(f"/proc/{run.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def ask(pipeline: Pipeline, query: str) -> list[str]:
    """Ask the target beside the running replicator; one row as text."""
    if not pipeline.target_url.startswith("duckdb:"):
        with psycopg.connect(pipeline.target_url) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return [str(value) for value in row]
    answer = command(pipeline, "query", query, "--format", "csv")
    assert answer.code == 0, answer.output
    return [line for line in answer.output.splitlines() if line and line[0].isdigit()][-1].split(",")


def digest(pipeline: Pipeline) -> str:
    """Hash every row of the target's large table, in order of the key; the replicator must have ended."""
    hashed = hashlib.md5(usedforsecurity=False)
    if pipeline.target_url.startswith("duckdb:"):
        with duckdb.connect(pipeline.target_url.removeprefix("duckdb:///"), read_only=True) as file:
            rows = file.execute("SELECT id::VARCHAR || ' ' || v || chr(10) FROM public.big ORDER BY id")
            while some := rows.fetchmany(100_000):
                hashed.update("".join(row[0] for row in some).encode())
        return hashed.hexdigest()
    with psycopg.connect(pipeline.target_url) as connection:
        return digest_of(connection)


def digest_of(connection: psycopg.Connection[tuple[object, ...]]) -> str:
    hashed = hashlib.md5(usedforsecurity=False)
    with connection.cursor() as cursor:
        query = b"COPY (SELECT id::text || ' ' || v FROM public.big ORDER BY id) TO STDOUT"
        with cursor.copy(query) as copy:
            for block in copy:
                hashed.update(bytes(block))
    return hashed.hexdigest()


NO_COVERAGE = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_five_million_rows_in_one_transaction(
    pipeline: Pipeline, record_testsuite_property: Callable[[str, object], None]
) -> None:
    source = pipeline.source
    # Measured as users run it: the coverage tool takes memory of its own.
    with running(pipeline, **NO_COVERAGE) as run, source.connect() as writer:
        run.wait_for("streaming")
        writer.execute("BEGIN")
        writer.execute(FILL)
        writer.execute("INSERT INTO small VALUES (1)")
        writer.execute("COMMIT")
        began = time.monotonic()
        seen: set[str] = set()

        def has_arrived() -> bool:
            big, small = ask(pipeline, COUNTS)
            seen.add(f"{big} and {small}")
            return small == "1"

        run.until(has_arrived, "the transaction in the target", deadline_seconds=900)
        seconds, peak = time.monotonic() - began, peak_rss_kib(run)
        summary = ask(pipeline, SUMMARY)

    target = pipeline.target_url.partition(":")[0]
    record_testsuite_property(f"five million rows into {target}", f"{seconds:.0f} s, at most {peak >> 10} MiB")
    assert seen <= {"0 and 0", f"{ROWS} and 1"}
    assert len(seen) == 2, "it came before it could be looked at"
    assert summary == [str(value) for value in source.execute(SUMMARY)[0]]
    with source.connect() as connection:
        assert digest(pipeline) == digest_of(connection)
    assert peak < MOST_RSS_KIB, f"{peak >> 10} MiB after {seconds:.0f} s"
