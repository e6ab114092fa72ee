"""Copying tables of real MySQL and MariaDB servers: the stream's values, one view in many sessions, large rows."""

from __future__ import annotations

import gc
import hashlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

import pyarrow as pa
import pytest

from cdcrep.connector import Chunk, Copied, Pipeline
from cdcrep.errors import TransientError
from cdcrep.selection import Selection
from cdcrep.table import Table, TableId
from cdcrep_connectors.mysql.options import SourceOptions
from cdcrep_connectors.mysql.snapshot import MySQLSnapshot
from cdcrep_connectors.mysql.source import MySQLSource
from tests.golden.mysql_workload import CHANGES, MARIADB_CHANGES, MARIADB_SCHEMA, MYSQL_CHANGES, MYSQL_SCHEMA, SCHEMA
from tests.servers.fix_mysql import every_mysql
from tests.servers.mysql_database import MySQLDatabase
from tests.servers.waiting import wait_until

UNLIKE: Final = frozenset({"statements", "phantoms", "versioned", "squeezed", "images"})
"""Tables of the workload that are about other things than values."""


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


def source_of(database: MySQLDatabase, pattern: str = "*", **settings: object) -> MySQLSource:
    pipeline = Pipeline("test", Selection((f"{database.name}.{pattern}",)), heartbeat_seconds=0.2)
    options = {"url": database.url, "chunk_bytes": 1 << 20, **settings}
    return MySQLSource(pipeline, SourceOptions.model_validate(options))


def rows_of(snapshot: MySQLSnapshot, chunks: Sequence[Chunk]) -> pa.Table:
    return pa.Table.from_batches([batch for chunk in chunks for batch in snapshot.read(chunk)["arrow"]()])


def rows_of_each(snapshot: MySQLSnapshot, tables: Sequence[Table]) -> list[list[dict[str, Any]]]:
    return [
        [
            row
            for chunk in snapshot.chunks(table, None)
            for batch in snapshot.read(chunk)["arrow"]()
            for row in batch.to_pylist()
        ]
        for table in tables
    ]


def begun(snapshot: MySQLSnapshot, chunk: Chunk) -> Any:
    """Return a generator of batches, which can be closed."""
    return snapshot.read(chunk)["arrow"]()


def run(database: MySQLDatabase, statements: Sequence[str]) -> None:
    with database.connect(charset="utf8mb4") as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00', NAMES utf8mb4")
        for statement in statements:
            cursor.execute(statement)


def about_values(statements: Sequence[str], begin: str) -> list[str]:
    """Choose from the workload what begins so and is about the values of types."""
    pattern = re.compile(rf"{begin} (\w+) ")
    found = ((statement, pattern.match(statement)) for statement in statements if "; " not in statement)
    return [statement for statement, match in found if match and match[1] not in UNLIKE]


@every_mysql
@pytest.mark.parametrize("dates", ["text", "null"])
def test_every_type_has_the_streams_values(mysql_source: MySQLDatabase, dates: str) -> None:
    mariadb = mysql_source.server.release.is_mariadb
    ways = [statement for statement in MARIADB_SCHEMA if statement.startswith("SET GLOBAL")] if mariadb else []
    schema = about_values(SCHEMA + (MARIADB_SCHEMA if mariadb else MYSQL_SCHEMA), "CREATE TABLE")
    # MariaDB's temporal types of old, which a setting of the server makes.
    run(mysql_source, [*ways[:1], *(each for each in schema if " ancient " in each), *ways[1:]])
    run(mysql_source, [each for each in schema if " ancient " not in each])
    with closing(source_of(mysql_source, impossible_dates=dates)) as source:
        after = source.current()
        changes = CHANGES + (MARIADB_CHANGES if mariadb else MYSQL_CHANGES)
        run(mysql_source, about_values(changes, "INSERT(?: IGNORE)? INTO"))
        tables = {table.id: table for table in source.tables()}
        streamed: dict[TableId, list[pa.Table]] = {}
        for batch in source.stream(after, {id_: Copied(after) for id_ in tables}, source.current()):
            for each in batch.changes:
                streamed.setdefault(each.table.id, []).append(each.new)
        with closing(source.snapshot()) as snapshot:
            copies = {id_: rows_of(snapshot, snapshot.chunks(table, None)) for id_, table in tables.items()}

    assert len(streamed) > 10
    for id_, parts in streamed.items():
        order = [(tables[id_].columns[0].name, "ascending")]
        expected, copy = pa.concat_tables(parts).sort_by(order), copies[id_].sort_by(order)
        assert copy.schema == expected.schema, id_
        for name in expected.column_names:
            assert copy[name].to_pylist() == expected[name].to_pylist(), (id_, name)


KEYS: Final[Mapping[str, tuple[str, str, Sequence[tuple[Any, ...]]]]] = {
    "far apart": ("id bigint", "PRIMARY KEY (id)", [(i * i * i * 10**6 - 2**62,) for i in range(2000)]),
    "an outlier": ("id bigint unsigned", "PRIMARY KEY (id)", [*((i,) for i in range(1999)), (2**64 - 1,)]),
    "mostly one first value": (
        "b int, a smallint",
        "PRIMARY KEY (a, b)",
        [(i * 7 - 3000, 1 if 100 < i < 1900 else i) for i in range(2000)],
    ),
    "text": (
        "id varchar(40) COLLATE utf8mb4_unicode_ci",
        "PRIMARY KEY (id)",
        [(hashlib.sha256(bytes([i % 256, i // 256])).hexdigest()[:36].upper(),) for i in range(2000)],
    ),
    "text that is not in UTF-8, below a number": (
        "id varchar(40) CHARACTER SET latin1, a int",
        "PRIMARY KEY (a, id)",
        [(f"Ö{i}", i // 400) for i in range(2000)],
    ),
    "bytes": (
        "id binary(16)",
        "PRIMARY KEY (id)",
        [(hashlib.sha256(bytes([i % 256, i // 256])).digest()[:16],) for i in range(2000)],
    ),
}


@every_mysql
@pytest.mark.parametrize("kind", list(KEYS))
def test_parts_are_of_like_size_and_together_the_whole(mysql_source: MySQLDatabase, kind: str) -> None:
    columns, key, keys = KEYS[kind]
    mysql_source.execute(f"CREATE TABLE t ({columns}, v varchar(3000), {key})")
    with mysql_source.connect() as connection, connection.cursor() as cursor:
        places = ", ".join(["%s"] * len(keys[0]))
        cursor.execute("SET sql_log_bin = 0")
        cursor.executemany(f"INSERT INTO t VALUES ({places}, repeat('v', 3000))", keys)
        cursor.execute("ANALYZE TABLE t")
    with closing(source_of(mysql_source)) as source, closing(source.snapshot()) as snapshot:
        (table,) = source.tables()
        chunks = snapshot.chunks(table, None)
        parts = [rows_of(snapshot, [chunk]).select(range(len(keys[0]))) for chunk in chunks]
        found = [tuple(row.values()) for part in parts for row in part.to_pylist()]

    assert sorted(found) == sorted(keys)
    assert len(chunks) > 3
    assert max(map(len, parts)) < 1000


LARGE: Final = (
    "SET sql_log_bin = 0",
    "CREATE TABLE t (id int PRIMARY KEY, v varchar(6000))",
    "INSERT INTO t VALUES (0, repeat('v', 6000))",
    *(f"INSERT INTO t SELECT id + {1 << i}, v FROM t" for i in range(12)),
)
"""More than the buffers of a connection hold."""


@every_mysql
def test_large_values_empty_tables_and_encrypted_sessions_are_read_whole(mysql_source: MySQLDatabase) -> None:
    mysql_source.execute("CREATE TABLE t (id int PRIMARY KEY, v longblob, n int)")
    mysql_source.execute("CREATE TABLE u (id int PRIMARY KEY)")
    with mysql_source.connect(max_allowed_packet=64 << 20) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@max_allowed_packet")
        ((size,),) = cursor.fetchall()
        # Split into packets of 16 MiB where the server allows as much.
        length = min(50 << 20, size - 1024)
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute("INSERT INTO t VALUES (1, 'a', 1), (2, repeat('b', %s), 2), (3, NULL, 3)", [length])
    url = f"{mysql_source.url}?ssl-mode={'REQUIRED' if not mysql_source.server.release.is_mariadb else 'DISABLED'}"
    with closing(source_of(mysql_source, url=url)) as source, closing(source.snapshot()) as snapshot:
        empty, filled = rows_of_each(snapshot, sorted(source.tables(), key=lambda table: table.name, reverse=True))

    assert empty == []
    assert [(row["id"], row["n"]) for row in filled] == [(1, 1), (2, 2), (3, 3)]
    assert [row["v"] for row in filled] == [b"a", b"b" * length, None]


@every_mysql
def test_a_result_that_is_not_read_to_its_end_leaves_the_view_as_it_was(mysql_source: MySQLDatabase) -> None:
    run(mysql_source, LARGE)
    with closing(source_of(mysql_source, chunk_bytes=1 << 30)) as source, closing(source.snapshot()) as snapshot:
        (table,) = source.tables()
        mysql_source.execute("DELETE FROM t WHERE id < 4000")
        (chunk,) = snapshot.chunks(table, None)
        for _ in range(4):
            with closing(begun(snapshot, chunk)) as batches:
                next(batches)
        rows = rows_of(snapshot, [chunk])

    assert len(rows) == 4096


@every_mysql
def test_a_killed_session_stops_the_copy(mysql_source: MySQLDatabase) -> None:
    run(mysql_source, LARGE)
    with closing(source_of(mysql_source, chunk_bytes=1 << 30)) as source, closing(source.snapshot()) as snapshot:
        (table,) = source.tables()
        (chunk,) = snapshot.chunks(table, None)
        batches = begun(snapshot, chunk)
        next(batches)
        ((number,),) = mysql_source.execute(
            "SELECT id FROM information_schema.processlist WHERE info LIKE %s AND id <> connection_id()",
            f"SELECT `id`, `v` FROM `{mysql_source.name}`%",
        )
        mysql_source.execute(f"KILL {number}")
        with pytest.raises(TransientError, match=f"copying {mysql_source.name}.t"):
            list(batches)


@every_mysql
def test_views_of_all_sessions_are_the_same_while_others_write(mysql_source: MySQLDatabase) -> None:
    mysql_source.execute("CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, n int)")
    stop = threading.Event()

    def write() -> None:
        with mysql_source.connect() as connection, connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute("INSERT INTO t (n) VALUES (1)")

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        wait_until(lambda: mysql_source.execute("SELECT count(*) > 50 FROM t") == [(1,)], 60.0, "rows")
        with closing(source_of(mysql_source)) as source, closing(source.snapshot()) as snapshot:
            (table,) = source.tables()
            (chunk,) = snapshot.chunks(table, None)
            # The first is held open meanwhile, so that each is read on another session.
            with closing(begun(snapshot, chunk)) as one, closing(begun(snapshot, chunk)) as other:
                first = next(one)["id"].to_pylist()
                seen = sorted(id_ for batch in other for id_ in batch["id"].to_pylist())
                first += [id_ for batch in one for id_ in batch["id"].to_pylist()]
            streamed = []
            for batch in source.stream(snapshot.position, {table.id: Copied(snapshot.position)}, source.current()):
                streamed += [id_ for changes in batch.changes for id_ in changes.new["id"].to_pylist()]
    finally:
        stop.set()
        for writer in writers:
            writer.join()

    assert sorted(first) == seen
    assert streamed
    both = sorted(seen + streamed)
    assert both == list(range(1, len(both) + 1))


@every_mysql
def test_writers_that_wait_for_each_other_around_the_lock_go_on(mysql_source: MySQLDatabase) -> None:
    mysql_source.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
    mysql_source.execute("INSERT INTO t VALUES (1, 0)")
    opened: list[MySQLSnapshot | BaseException] = []

    def update() -> None:
        mysql_source.execute("UPDATE t SET n = n + 1 WHERE id = 1")

    def copy(source: MySQLSource) -> None:
        try:
            opened.append(source.snapshot())
        except TransientError as error:
            opened.append(error)

    def is_running(text: str) -> bool:
        running = "SELECT 1 FROM information_schema.processlist WHERE info LIKE %s AND id <> connection_id()"
        return bool(mysql_source.execute(running, text))

    with closing(source_of(mysql_source)) as source, mysql_source.connect() as first, first.cursor() as cursor:
        first.begin()
        cursor.execute("UPDATE t SET n = n + 1 WHERE id = 1")
        threads = [threading.Thread(target=update), threading.Thread(target=copy, args=[source])]
        threads[0].start()
        wait_until(lambda: is_running("UPDATE t SET n%"), what="the second writer waits for the first")
        threads[1].start()
        # MariaDB needs no lock.
        wait_until(lambda: opened or is_running("FLUSH TABLES WITH%"), what="the lock waits for the second writer")
        cursor.execute("INSERT INTO t VALUES (2, 0)")
        first.commit()
        for thread in threads:
            thread.join()
        (snapshot,) = opened
        assert isinstance(snapshot, MySQLSnapshot), snapshot
        snapshot.close()

    assert mysql_source.execute("SELECT id, n FROM t") == [(1, 2), (2, 0)]
