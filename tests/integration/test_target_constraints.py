"""Unique indexes that only a PostgreSQL target has: what the source allows arrives, or is refused with what to type."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from cdcrep.connector import Chunk
from cdcrep.errors import DataError
from cdcrep_connectors.postgres.sink import PostgresSink
from tests.crash.children import command
from tests.crash.pipeline import Pipeline
from tests.integration.building_changes import Recorder, make_batch, make_table
from tests.integration.postgres_target import follow, make_sink
from tests.servers.database import Database

ITEMS = make_table("items", "id integer, note text", "id")


@pytest.fixture
def sink(target_database: Database) -> Iterator[PostgresSink]:
    sink = follow(make_sink(target_database.url), ITEMS)
    yield sink
    sink.close()


def refused_load(sink: PostgresSink, **columns: list[str]) -> DataError:
    loader = sink.loader()
    with pytest.raises(DataError) as refused:
        loader.load(Chunk(ITEMS, "a"), {"arrow": lambda: pa.table(columns).to_batches()})
    loader.close()
    return refused.value


@pytest.mark.parametrize("rows", [1, 100], ids=["direct", "staged"])
@pytest.mark.parametrize(
    ("statement", "hint"),
    [
        ("CREATE UNIQUE INDEX strict ON items (note)", 'DROP INDEX "public"."strict";'),
        ("ALTER TABLE items ADD CONSTRAINT strict UNIQUE (note)", 'ALTER TABLE "public"."items" DROP CONSTRAINT'),
        ("ALTER TABLE items ADD CONSTRAINT strict EXCLUDE (note WITH =)", "DROP CONSTRAINT"),
    ],
    ids=["index", "constraint", "exclusion"],
)
def test_streamed_rows_that_only_the_target_forbids_are_refused(
    target_database: Database, sink: PostgresSink, statement: str, hint: str, rows: int
) -> None:
    target_database.execute(statement)
    recorder = Recorder(ITEMS).insert("0", "secret")
    for i in range(1, rows + 1):
        recorder.insert(str(i), "secret")

    with pytest.raises(DataError, match="strict") as refused:
        sink.apply(make_batch("1", recorder))

    assert hint in (refused.value.hint or "")
    assert "secret" not in str(refused.value)
    assert target_database.execute("SELECT * FROM items") == []


def test_copied_rows_that_only_the_target_forbids_are_refused(target_database: Database, sink: PostgresSink) -> None:
    target_database.execute("CREATE UNIQUE INDEX strict ON items (note)")

    refused = refused_load(sink, id=["1", "2"], note=["secret", "secret"])

    assert 'DROP INDEX "public"."strict";' in (refused.hint or "")
    assert "secret" not in refused.message


def test_copied_rows_whose_keys_others_have_used_are_refused(target_database: Database, sink: PostgresSink) -> None:
    target_database.execute("INSERT INTO items VALUES (2, 'theirs')")

    refused = refused_load(sink, id=["1", "2"], note=["a", "b"])

    assert 'DROP TABLE "public"."items";' in (refused.hint or "")


@pytest.mark.parametrize(("existing", "chunks"), [("replace", set()), ("keep", {"a"})])
def test_an_interrupted_copy_begins_again_only_where_no_other_rows_are_lost(
    target_database: Database, sink: PostgresSink, existing: str, chunks: set[str]
) -> None:
    loader = sink.loader()
    loader.load(Chunk(ITEMS, "a"), {"arrow": lambda: pa.table({"id": ["1"], "note": ["a"]}).to_batches()})
    loader.close()
    sink.close()
    target_database.execute("CREATE UNIQUE INDEX strict ON items (note)")

    again = make_sink(target_database.url, on_existing=existing)
    checkpoint = again.open()
    again.close()

    assert checkpoint.tables[ITEMS.id].chunks == chunks


@pytest.mark.crash
def test_an_interrupted_copy_ends_well_in_spite_of_values_that_change_hands(
    source_database: Database, target_database: Database, tmp_path: Path
) -> None:
    source_database.execute(
        "CREATE TABLE items (id int PRIMARY KEY, code int UNIQUE, v text);"
        "INSERT INTO items SELECT i, i, repeat('x', 100) FROM generate_series(1, 40000) i"
    )
    target_database.execute("CREATE TABLE items (id int PRIMARY KEY, code int UNIQUE, v text)")
    pipeline = Pipeline.create(tmp_path, source_database, target_database.url, ("items",))
    killed = command(pipeline, "run", "--set", "source.chunk_bytes=1048576", CDCREP_CRASH_AT="load.after_commit:3")
    source_database.execute(
        "UPDATE items SET code = -code WHERE id % 100 = 0;"
        "UPDATE items SET code = id - 1 WHERE id % 100 = 1 AND id > 1;"
        "DELETE FROM items WHERE id % 100 = 2;"
        "INSERT INTO items SELECT -i, i, 'new' FROM generate_series(2, 40000, 100) i"
    )

    again = command(pipeline, "run", "--until-current")

    assert (killed.code, again.code) == (-9, 0), again.output
    assert pipeline.target_rows("items") == pipeline.source_rows("items")
