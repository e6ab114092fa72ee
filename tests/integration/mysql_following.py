"""Follows one database of a MySQL or MariaDB server, from its log's end to a later one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from cdcrep.changes import Batch
from cdcrep.connector import Copied, Pipeline
from cdcrep.position import Position
from cdcrep.selection import Selection
from cdcrep.table import TableId
from cdcrep_connectors.mysql.options import SourceOptions
from cdcrep_connectors.mysql.source import MySQLSource
from tests.servers.mysql_database import MySQLDatabase, RunningMySQL
from tests.servers.mysql_server import MySQLServer


def source_of(
    database: MySQLDatabase,
    pattern: str = "*",
    *,
    batch_rows: int = 100_000,
    batch_bytes: int = 32 << 20,
    **options: Any,
) -> MySQLSource:
    """Return a source that follows the tables of a database."""
    tables = Selection((f"{database.name}.{pattern}",))
    pipeline = Pipeline("test", tables, heartbeat_seconds=0.2, max_batch_rows=batch_rows, max_batch_bytes=batch_bytes)
    given = {"url": database.url, "chunk_bytes": 1 << 20, **options}
    return MySQLSource(pipeline, SourceOptions.model_validate(given))


def here(database: MySQLDatabase, pattern: str = "*") -> tuple[Position, Mapping[TableId, Copied]]:
    """Return the log's end, and all tables as copied there."""
    with closing(source_of(database, pattern)) as source:
        position = source.current()
        return position, {table.id: Copied(position) for table in source.tables()}


def read(
    database: MySQLDatabase, after: Position, copied: Mapping[TableId, Copied], pattern: str = "*", **options: Any
) -> list[Batch]:
    """Read what has committed by now."""
    with closing(source_of(database, pattern, **options)) as source:
        return list(source.stream(after, copied, source.current()))


def ids(batches: list[Batch]) -> list[int]:
    """Return the values of the columns `id` of all changes."""
    return [value for batch in batches for changes in batch.changes for value in changes.new.column("id").to_pylist()]


def last_position(batches: list[Batch]) -> Position:
    """Return where the last batch ends."""
    position = batches[-1].position
    assert position is not None
    return position


def database_on(server: MySQLServer, name: str | None = None) -> MySQLDatabase:
    """Return a fresh database on a test's own server, with this name if one is given."""
    running = RunningMySQL(server.release, server.url)
    if name is None:
        return MySQLDatabase.create(running)
    with running.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    return MySQLDatabase(running, name)


def run(database: MySQLDatabase, *statements: str) -> None:
    """Run statements in one session."""
    with database.connect() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
