"""Reads what stands in a database of any kind, as text that is the same from each of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import duckdb
import psycopg
import pymysql
from psycopg import sql

Rows = list[tuple[Any, ...]]


def rows_at(url: str, schema: str, table: str) -> Rows:
    """Read a table as sorted rows of text."""
    match urlsplit(url).scheme:
        case "duckdb":
            rows = select(url, f'SELECT COLUMNS(*)::VARCHAR FROM "{schema}"."{table}"')
        case "postgresql":
            rows = _postgres_rows(url, sql.Identifier(schema, table))
        case _:
            found = select(url, f"SELECT * FROM `{schema}`.`{table}`")
            rows = [tuple(None if value is None else str(value) for value in row) for row in found]
    return sorted(rows, key=str)


def select(url: str, query: str) -> Rows:
    """Return a query's rows."""
    match urlsplit(url).scheme:
        case "duckdb":
            with duckdb.connect(url.removeprefix("duckdb:///"), read_only=True) as file:
                return file.execute(query).fetchall()
        case "postgresql":
            with psycopg.connect(url) as session:
                return session.execute(query.encode()).fetchall()
        case _:
            with connect_mysql(url) as connection, connection.cursor() as cursor:
                cursor.execute(query)
                return list(cursor.fetchall())


def connect_mysql(url: str) -> pymysql.Connection[Any]:
    """Open an autocommit connection to the MySQL or MariaDB server that a URL names."""
    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=unquote(parts.username or "root"),
        password=unquote(parts.password or ""),
        database=unquote(parts.path.removeprefix("/")) or None,
        charset="utf8mb4",
        autocommit=True,
    )


def _postgres_rows(url: str, name: sql.Identifier) -> Rows:
    with psycopg.connect(url) as session:
        cursor = session.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(name))
        columns = sql.SQL(", ").join(
            sql.SQL("{}::text").format(sql.Identifier(column.name)) for column in cursor.description or ()
        )
        return session.execute(sql.SQL("SELECT {} FROM {}").format(columns, name)).fetchall()
