"""Reads from the target for people: the pipeline's status, and answers to queries at one exact commit."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pymysql

from cdcrep.connector import Answer
from cdcrep.errors import ConfigError
from cdcrep.position import Position
from cdcrep_connectors.mysql import checkpoint
from cdcrep_connectors.mysql.session import Session

STATUS: Final = """
    SELECT position, epoch, owner, source, commit_time, transactions, `rows`, UNIX_TIMESTAMP(updated_at)
    FROM cdcrep.checkpoints WHERE pipeline = %s"""

COPIES: Final = """
    SELECT t.table_schema, t.table_name, COALESCE(SUM(c.`rows`), 0), t.changes, t.copy_done
    FROM cdcrep.tables t LEFT JOIN cdcrep.chunks c ON c.pipeline = t.pipeline AND c.table_schema = t.table_schema
        AND c.table_name = t.table_name
    WHERE t.pipeline = %s AND t.copy_position IS NOT NULL
    GROUP BY t.table_schema, t.table_name, t.changes, t.copy_done ORDER BY 1, 2"""


def read_status(session: Session, pipeline: str) -> dict[str, Any]:
    """Return what `Sink.status` returns; empty where the pipeline is unknown."""
    found = session.fetch(STATUS, pipeline)
    if not found:
        return {}
    position, epoch, owner, source, commit_time, transactions, rows, updated_at = found[0]
    return {
        "position": position,
        "epoch": epoch,
        "owner": owner,
        "source": source,
        "commit_time": commit_time,
        "transactions": transactions,
        "rows": rows,
        "updated_at": float(updated_at),
        "tables": {
            f"{schema}.{name}": {"rows_copied": int(copied), "changes_applied": changes, "copy_done": bool(done)}
            for schema, name, copied, changes, done in session.fetch(COPIES, pipeline)
        },
    }


def answer(session: Session, pipeline: str, sql: str) -> Answer:
    """Run one statement in a read-only transaction that also reads the checkpoint."""
    known = checkpoint.installed(session)
    session.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    session.in_transaction = True
    position, commit_time = None, None
    statement = "SELECT position, commit_time FROM cdcrep.checkpoints WHERE pipeline = %s"
    if known and (found := session.fetch(statement, pipeline)):
        position, commit_time = found[0]
    try:
        names, rows = session.query(sql)
    except (pymysql.ProgrammingError, pymysql.NotSupportedError) as error:
        raise ConfigError(f"the query cannot be run: error {error.args[0]} of the target") from error
    return Answer(_arrow(names, rows), None if position is None else Position(position), commit_time)


def _arrow(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    columns = []
    for i in range(len(names)):
        values = [row[i] for row in rows]
        column = None
        with contextlib.suppress(pa.ArrowException):
            column = pa.array(values)
        columns.append(pa.array([None if v is None else str(v) for v in values]) if column is None else column)
    return pa.table(columns, names=list(names))
