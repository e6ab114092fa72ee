"""Keys of every kind of type find their rows in a PostgreSQL target, the same rows as ever, and by the index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from cdcrep.connector import Chunk
from cdcrep_connectors.postgres.sink import PostgresSink
from tests.integration.building_changes import Recorder, columns_of, make_batch, make_table
from tests.integration.postgres_target import follow, make_sink
from tests.servers.database import Database
from tests.servers.fix_postgres import oldest_and_newest_target
from tests.servers.waiting import wait_until

TYPES = """
CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION hstore;
CREATE SCHEMA "Odd ""types";
CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN chosen AS mood; CREATE DOMAIN code AS citext;
CREATE DOMAIN nested AS code; CREATE TYPE place AS (x int, y text); CREATE DOMAIN fixed AS char(4);
CREATE EXTENSION isn SCHEMA "Odd ""types";
"""

KEYS = {
    "public.citext": ("Key", "key 2"),
    "public.nested": ("Key", "key 2"),
    "public.ltree": ("a.b", "a.b.c"),
    "public.hstore": ('"a"=>"1"', '"a"=>NULL'),
    '"Odd ""types".isbn': ("0-393-04002-X", "0-901690-54-6"),
    "public.mood": ("sad", "ok"),
    "public.chosen": ("sad", "ok"),
    "public.place": ("(1,a)", '(2,"b c")'),
    "public.fixed": ("a   ", "ab  "),
    "public.mood[]": ("{sad}", "{sad,ok}"),
    "regclass": ("pg_class", "pg_type"),
    "numeric(6,2)": ("1.00", "-2.50"),
    "character varying(3)": ("", "a b"),
    "bit(3)": ("101", "000"),
    "inet": ("::1/64", "10.0.0.1"),
}

CITEXT = make_table("words", "word public.citext, note text, big text", "word")


@oldest_and_newest_target
@pytest.mark.parametrize("count", [3, 100], ids=["direct", "staged"])
def test_keys_of_every_kind_of_type_find_their_rows(target_database: Database, count: int) -> None:
    target_database.execute(TYPES)
    tables = [
        make_table(f"t{i}", f"k {native}, n integer, note text, big text", "k n") for i, native in enumerate(KEYS)
    ]
    for table, native in zip(tables, KEYS, strict=True):
        target_database.execute(
            f"CREATE TABLE {table.name} (k {native}, n integer, note text, big text, PRIMARY KEY (k, n))"
        )
    sink = follow(make_sink(target_database.url), *tables)

    for table, values in zip(tables, KEYS.values(), strict=True):
        inserts, updates, moves, deletes = Recorder(table), Recorder(table), Recorder(table), Recorder(table)
        for i in range(count):
            key, moved = (values[i % 2], str(i)), (values[(i + 1) % 2], str(i + count))
            inserts.insert(*key, "inserted", "big")
            updates.update(*key, "updated", None, unchanged=[3])
            if i % 3 == 0:
                moves.update(*moved, "moved", None, old=key, unchanged=[3])
            elif i % 3 == 1:
                deletes.delete(*key)
        for number, recorder in enumerate((inserts, updates, moves, deletes)):
            sink.apply(make_batch(f"{table.name}/{number}", recorder))
        rows = [(values[0], str(2 * count + i), "copied", "big") for i in range(count)]
        kept = [(values[(i + 1) % 2], str(i + count)) for i in range(0, count, 3)]
        load(sink, table_chunk := Chunk(table, "a", overlapping=True), rows)
        load(sink, table_chunk, rows)
        loader = sink.loader()
        identity = columns_of([*kept, *(row[:2] for row in rows)], ["k", "n"])
        loader.prune(table, {"arrow": identity.to_batches})
        loader.close()

        found = target_database.execute(f"SELECT n, note, big FROM {table.name} ORDER BY n")
        expected = [(i + count, "moved", "big") for i in range(0, count, 3)]
        assert found == [*expected, *((2 * count + i, "copied", "big") for i in range(count))], table
    assert target_database.execute("SELECT sum(missing) FROM cdcrep.tables") == [(0,)]
    sink.close()


def load(sink: PostgresSink, chunk: Chunk, rows: Sequence[tuple[str, ...]]) -> None:
    loader = sink.loader()
    names = [column.name for column in chunk.table.columns]
    loader.load(chunk, {"arrow": columns_of(rows, names).to_batches})
    loader.close()


@pytest.fixture
def words(target_database: Database) -> Iterator[PostgresSink]:
    target_database.execute(
        "CREATE EXTENSION citext; CREATE TABLE words (word citext PRIMARY KEY, note text, big text)"
    )
    sink = follow(make_sink(target_database.url), CITEXT)
    load(sink, Chunk(CITEXT, "a"), [(f"Word {i}", "copied", "big") for i in range(5000)])
    target_database.execute("ANALYZE words")
    yield sink
    sink.close()


@pytest.mark.parametrize("count", [3, 100], ids=["direct", "staged"])
def test_keys_that_ignore_case_are_found_by_their_index(
    target_database: Database, words: PostgresSink, count: int
) -> None:
    scans = "SELECT seq_scan, coalesce(idx_scan, 0) FROM pg_stat_all_tables WHERE relid = 'words'::regclass"
    words.close()
    words.open()
    ((before, by_index),) = target_database.execute(scans)

    for number in range(3):
        recorder = Recorder(CITEXT)
        for i in range(count):
            word = f"Word {number * count + i}"
            recorder.update(word, "updated", None, unchanged=[2]) if i % 3 else recorder.delete(word)
        words.apply(make_batch(str(number), recorder))
    # An ending session reports what it has scanned.
    words.close()

    wait_until(lambda: target_database.execute(scans)[0][1] >= by_index + count, what="scans of the index")
    assert target_database.execute(scans)[0][0] == before


@pytest.mark.parametrize("count", [1, 100], ids=["direct", "staged"])
def test_keys_that_differ_in_case_are_as_different_as_at_the_source(
    target_database: Database, words: PostgresSink, count: int
) -> None:
    recased, others = Recorder(CITEXT), Recorder(CITEXT)
    for i in range(count):
        recased.update(f"WORD {i}", "recased", None, old=(f"Word {i}",), unchanged=[2])
        others.delete(f"word {1000 + i}")

    words.apply(make_batch("1", recased))
    words.apply(make_batch("2", others))

    found = target_database.execute("SELECT word::text, note, big FROM words WHERE note = 'recased'")
    assert sorted(found) == sorted((f"WORD {i}", "recased", "big") for i in range(count))
    assert target_database.execute("SELECT count(*) FROM words") == [(5000,)]
