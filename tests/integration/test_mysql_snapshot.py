"""Copying tables of real MySQL and MariaDB servers: the stream's values, one view in many sessions, large rows."""

from __future__ import annotations

import gc
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

import pyarrow as pa
import pytest

from cdcrep.connector import Chunk, Copied, Pipeline
from cdcrep.selection import Selection
from cdcrep.table import TableId
from cdcrep_connectors.mysql.options import SourceOptions
from cdcrep_connectors.mysql.snapshot import MySQLSnapshot
from cdcrep_connectors.mysql.source import MySQLSource
from tests.golden.mysql_workload import CHANGES, MARIADB_CHANGES, MARIADB_SCHEMA, MYSQL_CHANGES, MYSQL_SCHEMA, SCHEMA
from tests.servers.fix_mysql import every_mysql
from tests.servers.mysql_database import MySQLDatabase

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


KEYS: Final = {
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
