"""Running statements to their end: DuckDB refuses the next one while rows of the last one wait to be fetched."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import duckdb
from duckdb import DuckDBPyConnection

KEPT_CHARACTERS: Final = 16 << 10
"""Statements up to this length stay parsed: those of tables with a thousand columns would take megabytes each."""


def first_row(connection: DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...] | None:
    """Run a statement and return the first row of its result, if it has one."""
    statement = _parsed(sql) if len(sql) <= KEPT_CHARACTERS else sql
    rows = connection.execute(statement, list(parameters)).fetchall()
    return rows[0] if rows else None


def changed(connection: DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()) -> int:
    """Run a statement that changes rows and return how many."""
    row = first_row(connection, sql, parameters)
    return int(row[0]) if row else 0


@lru_cache(256)
def _parsed(sql: str) -> duckdb.Statement:
    """Parse a statement once: for one that changes few rows that is a third of the work."""
    (statement,) = duckdb.extract_statements(sql)
    return statement
