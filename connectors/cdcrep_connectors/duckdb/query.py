"""Read-only statements of users, at exactly one source commit."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import duckdb

from cdcrep.connector import Answer
from cdcrep.errors import ConfigError
from cdcrep_connectors.duckdb.bookkeeping import Bookkeeping
from cdcrep_connectors.duckdb.statements import first_row

READING: Final = frozenset({duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN})
"""SHOW, DESCRIBE, SUMMARIZE, VALUES and FROM count as SELECT."""

BAD_STATEMENTS: Final = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)


def run(connection: duckdb.DuckDBPyConnection, book: Bookkeeping, sql: str, *, has_book: bool = False) -> Answer:
    """Run one statement in a read-only transaction that also reads the checkpoint; `has_book`: known to exist.

    The transaction keeps the statement from changing this file; the instance's settings keep it from other files.
    """
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.ParserException as error:
        raise ConfigError(f"the query cannot be read: {error}") from error
    if len(statements) != 1 or statements[0].type not in READING:
        raise ConfigError("a query is one statement that only reads", hint="SELECT, FROM, SHOW, DESCRIBE, EXPLAIN …")
    connection.execute("BEGIN TRANSACTION READ ONLY")
    try:
        position, commit_time = None, None
        if has_book or book.exists(connection):
            row = first_row(
                connection,
                f"SELECT position, commit_time FROM {book.schema}.pipeline_state WHERE pipeline = $1",
                [book.pipeline],
            )
            position, commit_time = row or (None, None)
        try:
            data = connection.sql(statements[0]).to_arrow_table()
        except BAD_STATEMENTS as error:
            raise ConfigError(f"the query cannot be run: {error}") from error
        except duckdb.TransactionException as error:
            raise ConfigError("a query may not change anything") from error
        return Answer(data, position, commit_time)
    finally:
        with suppress(duckdb.Error):  # a failed statement may have ended the transaction
            connection.rollback()
