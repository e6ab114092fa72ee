"""`cdcrep backfill`: a copy made once, resumed after a kill, with nothing left behind at the source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.crash.children import command
from tests.crash.conftest import Ends
from tests.crash.observer import select
from tests.crash.pipeline import Pipeline
from tests.crash.workload_sessions import SourceDatabase, run_script
from tests.servers.database import Database

ROWS = 30_000
SMALL_CHUNKS = ("--set", "source.chunk_bytes=1048576")

CREATE = "CREATE TABLE big (id bigint PRIMARY KEY, v text);"
IN_POSTGRES = f"{CREATE} INSERT INTO big SELECT i, repeat('x', 600) FROM generate_series(1, {ROWS}) i"
# The number of chunks depends on what the server believes to be the table's size.
IN_MYSQL = f"""{CREATE}
INSERT INTO big WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 1000)
    SELECT a.i + 1000 * (b.i - 1), repeat('x', 600) FROM s a, s b WHERE b.i <= {ROWS // 1000};
ANALYZE TABLE big"""

pytestmark = pytest.mark.parametrize(
    "ends",
    [
        "postgresql-to-postgresql",
        "postgresql-to-duckdb",
        "postgresql-to-mysql-9.7",
        "mysql-9.7-to-postgresql",
        "mariadb-10.11-to-duckdb",
    ],
    indirect=True,
)


@pytest.fixture
def pipeline(ends: Ends) -> Pipeline[Any]:
    """A pipeline over one table of some twenty chunks."""
    run_script(ends.source, IN_POSTGRES if isinstance(ends.source, Database) else IN_MYSQL)
    return ends.pipeline("big")


def left_behind(database: SourceDatabase) -> Sequence[object]:
    """Return what replication has made in a database: slots, publications, tables beside ours."""
    if isinstance(database, Database):
        return database.execute(
            "SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database() "
            "UNION ALL SELECT pubname::text FROM pg_publication"
        )
    return [row for row in database.execute("SHOW TABLES") if row != ("big",)]


def chunks(pipeline: Pipeline[Any]) -> int:
    """Count the chunks that the target remembers."""
    query = "SELECT coalesce(sum(chunks), 0) FROM cdcrep.backfill"
    ((count,),) = select(pipeline.target_url, f"{query} WHERE pipeline = '{pipeline.source.name}'")
    return int(count)


def same(pipeline: Pipeline[Any]) -> bool:
    return pipeline.source_rows("big") == pipeline.target_rows("big")


@pytest.mark.crash
def test_a_backfill_leaves_nothing_at_the_source(pipeline: Pipeline[Any]) -> None:
    ended = command(pipeline, "backfill")

    assert ended.code == 0, ended.output
    assert same(pipeline)
    assert left_behind(pipeline.source) == []


@pytest.mark.crash
def test_a_killed_backfill_keeps_its_finished_chunks(pipeline: Pipeline[Any]) -> None:
    killed = command(pipeline, "backfill", *SMALL_CHUNKS, CDCREP_CRASH_AT="load.after_commit:12")
    durable = chunks(pipeline)
    run_script(pipeline.source, "UPDATE big SET v = 'new' WHERE id % 1000 = 0; DELETE FROM big WHERE id % 1000 = 1")
    again = command(pipeline, "backfill", *SMALL_CHUNKS)

    assert (killed.code, again.code) == (-9, 0), again.output
    assert durable >= 12
    assert f"rows={ROWS - ROWS // 1000}" not in again.output
    assert same(pipeline)
    assert left_behind(pipeline.source) == []


@pytest.mark.crash
@pytest.mark.parametrize("point", ["engine.before_tear_down", "engine.before_forget"])
def test_a_backfill_that_is_killed_while_it_tidies_up_is_completed_by_the_next(
    pipeline: Pipeline[Any], point: str
) -> None:
    killed = command(pipeline, "backfill", CDCREP_CRASH_AT=point)
    run_script(
        pipeline.source,
        "UPDATE big SET v = 'new' WHERE id % 1000 = 0; DELETE FROM big WHERE id % 1000 = 1;"
        "INSERT INTO big VALUES (-1, 'meanwhile')",
    )
    again = command(pipeline, "backfill")

    assert (killed.code, again.code) == (-9, 0), again.output
    assert f"rows={ROWS - ROWS // 1000 + 1}" not in again.output
    assert same(pipeline)
    assert left_behind(pipeline.source) == []
