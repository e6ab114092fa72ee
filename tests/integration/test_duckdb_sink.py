"""What the DuckDB sink does beyond the contract that every sink keeps."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from cdcrep.changes import UPDATE, Changes
from cdcrep.connector import Chunk, Pipeline
from cdcrep.errors import ConfigError, DataError, DivergedError, SetupError, TransientError
from cdcrep.table import Column, ColumnType, Kind, Table
from tests.integration.duckdb_target import (
    EVERYTHING,
    INT,
    TEXT,
    batch,
    deletes,
    inserts,
    keyed,
    load,
    make_sink,
    open_sink,
    rows_of,
    text_rows,
    updates,
    write_as_owner,
)
from tests.servers.waiting import wait_until

ITEMS = keyed()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "target.duckdb"


@pytest.fixture
def holder(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the file open."""
    program = f"import duckdb, sys; c = duckdb.connect({str(file)!r}); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


def opens_elsewhere(file: Path) -> bool:
    program = f"import duckdb; duckdb.connect({str(file)!r})"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_a_file_that_another_process_holds_is_refused_with_its_pid(file: Path, holder: subprocess.Popen[str]) -> None:
    sink = make_sink(file)

    with pytest.raises(TransientError, match=rf"pid {holder.pid}\b"):
        sink.open()
    assert any(f"pid {holder.pid}" in obstacle.what for obstacle in sink.obstacles([ITEMS]))


def test_a_missing_directory_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    sink = make_sink(tmp_path / "no" / "such" / "file.duckdb")

    with pytest.raises(SetupError, match="does not exist") as refused:
        sink.open()
    assert refused.value.hint == f"mkdir -p {tmp_path}/no/such"
    assert [obstacle.hint for obstacle in sink.obstacles([])] == [f"mkdir -p {tmp_path}/no/such"]


def test_a_file_called_like_the_bookkeeping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="called like the schema"):
        make_sink(tmp_path / "cdcrep.duckdb").open()


def test_something_that_is_no_database_is_refused(file: Path) -> None:
    file.write_bytes(b"no database at all" * 1000)

    with pytest.raises(SetupError):
        make_sink(file).open()


def test_a_schema_called_like_the_file_is_told_apart(file: Path) -> None:
    table = keyed("target", schema="target")
    sink = open_sink(file, table)

    sink.apply(batch("1", inserts(table, ("1", "a"))))

    assert rows_of(sink, "FROM target.target.target") == [(1, "a")]
    sink.close()


@pytest.mark.parametrize(
    ("tables", "what"),
    [
        ([keyed("Items"), keyed("items")], "one name in DuckDB"),
        ([keyed("a", schema="S"), keyed("a", schema="s")], "one name in DuckDB"),
        ([keyed("a", Column("Note", TEXT))], "one name in DuckDB"),
        ([keyed("a", schema="cdcrep")], "reserves the schema"),
        ([Table("public", "empty", (), (), "postgresql")], "without columns"),
    ],
)
def test_names_that_duckdb_cannot_hold_are_obstacles(file: Path, tables: list[Table], what: str) -> None:
    found = make_sink(file).obstacles(tables)

    assert [obstacle.fatal for obstacle in found] == [True]
    assert what in found[0].what
    assert "exclude" in found[0].hint
    assert not file.exists()


def test_status_of_a_file_that_does_not_exist_makes_none(file: Path) -> None:
    assert make_sink(file).status() == {}
    assert make_sink(file).forget() == []
    assert not file.exists()


def test_bookkeeping_of_a_newer_version_is_refused(file: Path) -> None:
    open_sink(file, ITEMS).close()
    with duckdb.connect(str(file)) as connection:
        connection.execute("UPDATE cdcrep.schema_version SET version = 99")

    with pytest.raises(SetupError, match="version 99"):
        make_sink(file).open()


def test_the_views_show_the_checkpoint_and_the_copies(file: Path) -> None:
    sink = open_sink(file, ITEMS)
    load(sink, Chunk(ITEMS, "all"), *text_rows(ITEMS, [("1", "a"), ("2", "b")]).to_batches())
    sink.apply(batch("1", inserts(ITEMS, ("3", "c"))))

    checkpoint = rows_of(sink, 'SELECT pipeline, position, epoch, transactions, "rows" FROM cdcrep.checkpoint')
    backfill = rows_of(sink, 'SELECT pipeline, "table", chunks, "rows", done, position FROM cdcrep.backfill')

    assert checkpoint == [("shop", "1", 1, 1, 1)]
    assert backfill == [("shop", "public.items", 1, 2, True, "0")]
    assert sink.status()["tables"] == {"public.items": {"rows_copied": 2, "changes_applied": 1, "copy_done": True}}
    sink.close()


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM public.items",
        "WITH gone AS (DELETE FROM public.items RETURNING *) SELECT * FROM gone",
        "EXPLAIN ANALYZE DELETE FROM public.items",
        "CREATE TEMP TABLE t AS SELECT 1",
        "COPY public.items TO '/tmp/never.csv'",
        "SELECT 1; SELECT 2",
        "SET memory_limit = '1TB'",
        "ATTACH '/tmp/never.duckdb'",
        "CHECKPOINT",
        "SELECT * FROM nothing",
        "SELEC 1",
        "",
    ],
)
def test_a_query_only_reads(file: Path, sql: str) -> None:
    sink = open_sink(file, ITEMS)
    sink.apply(batch("1", inserts(ITEMS, ("1", "a"))))

    with pytest.raises(ConfigError):
        sink.query(sql)

    assert rows_of(sink, "FROM public.items") == [(1, "a")]
    sink.close()


@pytest.mark.parametrize("sql", ["FROM read_text('/etc/passwd')", "FROM '/etc/passwd.csv'", "FROM glob('/etc/*')"])
def test_a_query_reaches_no_other_file(file: Path, sql: str) -> None:
    sink = open_sink(file, ITEMS)

    with pytest.raises((ConfigError, SetupError)):
        sink.query(sql)
    sink.close()


def test_a_query_shows_the_last_commit_while_a_transaction_is_open(file: Path) -> None:
    sink = open_sink(file, ITEMS)
    sink.apply(batch("1", inserts(ITEMS, ("1", "a"))))
    sink.apply(batch(None, deletes(ITEMS, ("1",)), inserts(ITEMS, ("2", "b"))))

    before = sink.query("FROM public.items")
    sink.apply(batch("2", inserts(ITEMS, ("3", "c"))))
    after = sink.query("FROM public.items ORDER BY id")

    assert (before.position, before.data.column("id").to_pylist()) == ("1", [1])
    assert (after.position, after.data.column("id").to_pylist(), after.commit_time) == ("2", [2, 3], 1.5)
    sink.close()


def test_queries_beside_a_running_apply_always_see_whole_transactions(file: Path) -> None:
    sink = open_sink(file, ITEMS)
    keys = [str(key) for key in range(200)]
    sink.apply(batch("1", inserts(ITEMS, *((key, "1") for key in keys))))
    seen, running = [], threading.Event()

    def ask() -> None:
        while not running.is_set():
            answer = sink.query("SELECT DISTINCT note FROM public.items")
            seen.append(answer.data.column("note").to_pylist() == [answer.position])

    asking = threading.Thread(target=ask)
    asking.start()
    for number in range(2, 60):
        sink.apply(batch(str(number), updates(ITEMS, *((key, str(number)) for key in keys))))
    running.set()
    asking.join()

    assert seen
    assert all(seen)
    sink.close()


def test_a_value_error_names_the_column_and_leaves_nothing_behind(file: Path) -> None:
    table = keyed("items", Column("day", ColumnType(Kind.DATE, "date")))
    sink = open_sink(file, table)

    with pytest.raises(DataError, match=r"column .day..*up to position 1") as refused:
        sink.apply(batch("1", inserts(table, ("1", "a", "2024-01-01"), ("2", "b", "secret"), ("3", "c", None))))
    assert "secret" not in str(refused.value)

    assert rows_of(sink, "FROM public.items") == []
    assert sink.query("SELECT 1").position == "0"
    sink.close()


def test_another_type_at_the_source_stops_until_the_table_is_copied_anew(file: Path) -> None:
    sink = open_sink(file, ITEMS)
    wider = Table("public", "items", (ITEMS.columns[0], Column("note", INT)), ("id",), "postgresql")

    with pytest.raises(SetupError, match="'note' changed its type at the source from text to bigint") as refused:
        sink.apply(batch("1", inserts(wider, ("1", "2"))))
    assert str(refused.value.hint).startswith('DROP TABLE "public"."items";')
    sink.close()


def test_generated_columns_of_the_target_are_left_to_it(file: Path) -> None:
    sink = open_sink(file, ITEMS)
    write_as_owner(sink, "DROP TABLE public.items")
    write_as_owner(sink, "CREATE TABLE public.items (id BIGINT, twice BIGINT AS (id * 2), note VARCHAR)")

    sink.apply(batch("1", inserts(ITEMS, ("1", "a"))))
    sink.apply(batch("2", updates(ITEMS, ("1", "b"))))

    assert rows_of(sink, "SELECT id, twice, note FROM public.items") == [(1, 2, "b")]
    sink.close()


def test_a_cancelled_sink_applies_nothing_until_it_is_opened_again(file: Path) -> None:
    sink = open_sink(file, ITEMS)
    sink.cancel()

    with pytest.raises(TransientError):
        sink.apply(batch("1", inserts(ITEMS, ("1", "a"))))
    sink.close()
    assert sink.open().position == "0"
    sink.apply(batch("1", inserts(ITEMS, ("1", "a"))))

    assert rows_of(sink, "FROM public.items") == [(1, "a")]
    sink.close()


def test_two_loaders_fill_one_table_side_by_side(file: Path) -> None:
    sink = open_sink(file, ITEMS)
    failures: list[BaseException] = []

    def fill(worker: int) -> None:
        loader = sink.loader()
        try:
            for number in range(10):
                keys = range((worker * 10 + number) * 1000, (worker * 10 + number + 1) * 1000)
                rows = pa.table([list(keys), ["x"] * 1000], names=["id", "note"])
                loader.load(Chunk(ITEMS, f"{worker} {number}"), {"arrow": rows.to_batches})
        except BaseException as error:
            failures.append(error)
        finally:
            loader.close()

    threads = [threading.Thread(target=fill, args=(worker,)) for worker in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert rows_of(sink, "SELECT count(*), count(DISTINCT id) FROM public.items") == [(20_000, 20_000)]
    sink.close()


def test_a_file_that_is_not_held_opens_elsewhere_when_idle_and_serves_again(file: Path) -> None:
    sink = open_sink(file, ITEMS, hold_file=False, idle_seconds=0.05)
    sink.apply(batch("1", inserts(ITEMS, ("1", "a"))))
    wait_until(lambda: opens_elsewhere(file), what="the file free")

    sink.apply(batch("2", inserts(ITEMS, ("2", "b"))))

    assert rows_of(sink, "SELECT id FROM public.items ORDER BY id") == [(1,), (2,)]
    sink.close()


def test_a_held_file_stays_closed_to_others(file: Path) -> None:
    sink = open_sink(file, ITEMS)

    assert not opens_elsewhere(file)
    sink.close()
    assert opens_elsewhere(file)


def test_a_checkpoint_that_moved_while_the_file_was_free_is_divergence(file: Path) -> None:
    sink = open_sink(file, ITEMS, hold_file=False, idle_seconds=0.05)
    wait_until(lambda: opens_elsewhere(file), what="the file free")
    with duckdb.connect(str(file)) as connection:
        connection.execute("UPDATE cdcrep.pipeline_state SET position = 'elsewhere'")

    with pytest.raises(DivergedError):
        sink.apply(batch("1", inserts(ITEMS, ("1", "a"))))
    sink.close()


def test_an_open_transaction_keeps_the_file(file: Path) -> None:
    sink = open_sink(file, ITEMS, hold_file=False, idle_seconds=0.01)
    sink.apply(batch(None, inserts(ITEMS, ("1", "a"))))

    assert not opens_elsewhere(file)
    sink.apply(batch("1", inserts(ITEMS, ("2", "b"))))

    assert rows_of(sink, "SELECT count(*) FROM public.items") == [(2,)]
    sink.close()


@pytest.mark.slow
def test_random_keys_of_a_large_table_get_the_memory_that_deleting_them_takes(file: Path) -> None:
    sink = open_sink(file, ITEMS)
    rows = 12_000_000
    write_as_owner(sink, f"INSERT INTO public.items SELECT range, 'x' FROM range({rows})")
    keys = [str(key) for key in range(0, rows, 1500)]

    changes = Changes(ITEMS, np.full(len(keys), UPDATE, np.uint8), text_rows(ITEMS, [(key, "y") for key in keys]))
    sink.apply(batch("1", changes))

    assert rows_of(sink, "SELECT count(*), count(*) FILTER (note = 'y') FROM public.items") == [(rows, len(keys))]
    sink.close()


def test_pipelines_share_a_file_without_touching_each_other(file: Path) -> None:
    open_sink(file, ITEMS).close()
    other = open_sink(file, keyed("orders"), pipeline=Pipeline("other", EVERYTHING))
    other.apply(batch("7", inserts(keyed("orders"), ("1", "a"))))

    assert other.forget()
    other.close()

    assert make_sink(file).status()["position"] == "0"
    assert make_sink(file, Pipeline("other", EVERYTHING)).status() == {}


def test_wide_values_in_pieces_of_a_transaction_get_the_memory_that_they_take(file: Path) -> None:
    sink = open_sink(file, ITEMS)
    value = "ab" * (25 << 20)

    for number in range(3):
        sink.apply(batch(None, inserts(ITEMS, (str(number), f"{number}{value}"))))
    sink.apply(batch("1"))

    assert rows_of(sink, "SELECT id, length(note) FROM public.items ORDER BY id") == [
        (number, 1 + len(value)) for number in range(3)
    ]
    sink.close()
