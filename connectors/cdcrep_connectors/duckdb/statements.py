"""Running statements to their end: DuckDB refuses the next one while rows of the last one wait to be fetched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from duckdb import DuckDBPyConnection


def first_row(connection: DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...] | None:
    """Run a statement and return the first row of its result, if it has one."""
    rows = connection.execute(sql, list(parameters)).fetchall()
    return rows[0] if rows else None


def changed(connection: DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()) -> int:
    """Run a statement that changes rows and return how many."""
    row = first_row(connection, sql, parameters)
    return int(row[0]) if row else 0
