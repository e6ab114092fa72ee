"""How the contract suites reach MySQL and MariaDB as sources: statements as SQL, rows as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from cdcrep.connector import Pipeline, Source
from cdcrep.position import Position
from cdcrep.table import Table
from cdcrep.testing.memory import AddColumn, Delete, Insert, Truncate, Update
from cdcrep.testing.memory_tables import Row, Statement, table_id
from cdcrep_connectors.mysql.options import SourceOptions
from cdcrep_connectors.mysql.source import MySQLSource
from tests.servers.mysql_database import RunningMySQL

DATABASE = "shop"


class MySQLOrigin:
    """A fresh database `shop` on a server that other tests use, too."""

    def __init__(self, server: RunningMySQL) -> None:
        self.server = server
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
            cursor.execute(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")

    def source(self, pipeline: Pipeline) -> Source:
        url = self.server.url(DATABASE)
        return MySQLSource(pipeline, SourceOptions.model_validate({"url": url, "chunk_bytes": 1 << 20}))

    def create(self, table: Table, unsent: Sequence[str] = ()) -> None:
        # `commit` leaves out of the log what it can of every table.
        columns = [
            f"{column.name} {_native(column.type.native, column.name in table.key)}"
            f"{'' if column.nullable else ' NOT NULL'}"
            for column in table.columns
        ]
        if table.key:
            columns.append(f"PRIMARY KEY ({', '.join(table.key)})")
        self._run([f"CREATE TABLE {table.id} ({', '.join(columns)})"])

    def commit(self, *statements: Statement) -> None:
        with self.server.connect(autocommit=False) as connection, connection.cursor() as cursor:
            if not any(isinstance(each, Insert) for each in statements):
                # An inserted row would lack the columns that have their default.
                cursor.execute("SET SESSION binlog_row_image = 'NOBLOB'")
            connection.begin()
            run(cursor, statements)
            connection.commit()

    def roll_back(self, *statements: Statement) -> None:
        with self.server.connect(autocommit=False) as connection, connection.cursor() as cursor:
            run(cursor, statements)
            connection.rollback()

    def rows(self, table: Table) -> list[Row]:
        columns = ", ".join(f"CAST({column.name} AS char)" for column in table.columns)
        with self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT {columns} FROM {table.id}")
            return list(cursor.fetchall())

    def foreign_position(self, position: Position) -> Position:
        # That server's own transactions: one that has all of ours may go on.
        kind, server, rest = position.split("/", 2)
        changed = re.sub(r"[0-9]", lambda digit: str((int(digit[0]) + 1) % 10), server)
        last = re.sub(r"-[0-9]+-", f"-{changed}-1000", rest)
        return Position("/".join([kind, changed, last if kind == "mariadb" else rest.replace(server, changed)]))

    def close(self) -> None:
        self._run([f"DROP DATABASE IF EXISTS {DATABASE}"])

    def _run(self, statements: Sequence[str]) -> None:
        with self.server.connect() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


def run(cursor: Any, statements: Sequence[Statement]) -> None:
    """Run statements in the session's transaction."""
    for statement in statements:
        name = str(table_id(statement.table))
        match statement:
            case Insert(_, row):
                places = ", ".join(["%s"] * len(row))
                cursor.execute(f"INSERT INTO {name} ({', '.join(row)}) VALUES ({places})", list(row.values()))
            case Update(_, where, to):
                changes = ", ".join(f"{column} = %s" for column in to)
                condition = " AND ".join(f"{column} = %s" for column in where)
                values = [*to.values(), *where.values()]
                cursor.execute(f"UPDATE {name} SET {changes} WHERE {condition} LIMIT 1", values)
            case Delete(_, where):
                condition = " AND ".join(f"{column} = %s" for column in where)
                cursor.execute(f"DELETE FROM {name} WHERE {condition} LIMIT 1", list(where.values()))
            case Truncate(_):
                cursor.execute(f"TRUNCATE {name}")
            case AddColumn(_, column):
                cursor.execute(f"ALTER TABLE {name} ADD {column.name} {_native(column.type.native)}")


def _native(native: str, key: bool = False) -> str:
    # TEXT cannot be a key without a length.
    return "varchar(100)" if key and native == "text" else native
