"""Applies a small batch in one round trip: BEGIN, one prepared statement per row, the position, COMMIT.

Every statement fails unless it does exactly what the change says: touch one row. Then nothing is committed and the
batch goes the general way, which knows what to do about rows that are missing or already there. A row costs two orders
of magnitude more server time than in a COPY, but there is only one round trip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg
import pyarrow as pa

from cdcrep.fold import Net, NetRows
from cdcrep_connectors.postgres.copy_text import text_form
from cdcrep_connectors.postgres.session import Session
from cdcrep_connectors.postgres.target_tables import TargetTable

MOST_ROWS: Final = 24
MOST_BYTES: Final = 1 << 20

Statement = tuple[str, Sequence[Any]]


def suits(effects: Sequence[Net | NetRows]) -> bool:
    """Tell whether a batch is small and simple enough."""
    rows = size = 0
    for net in effects:
        if net.truncated:
            return False
        if isinstance(net, Net):
            if net.moved is not None:
                return False
            rows += net.rows.num_rows + net.deletes.num_rows
            size += net.rows.nbytes
        else:
            if net.removed.num_rows:
                return False
            rows += net.added.num_rows
            size += net.added.nbytes
    return rows <= MOST_ROWS and size <= MOST_BYTES


def run(session: Session, statements: Sequence[Statement]) -> bool:
    """Execute the statements in one transaction and one round trip; return False if nothing was committed.

    An error that speaks of the connection or the server, not of the data, passes through.
    """
    session.check()
    cursor = session.cursor
    try:
        with session.connection.pipeline():
            cursor.execute(b"BEGIN")
            for statement, values in statements:
                cursor.execute(statement.encode(), values, prepare=True)
            cursor.execute(b"COMMIT")
    except (psycopg.DataError, psycopg.IntegrityError):
        session.connection.rollback()
        return False
    return True


def deletes(target: TargetTable, net: Net) -> Iterator[Statement]:
    """Delete each key."""
    ordinals = target.table.key_positions
    condition = " AND ".join(f"{target.column(i)} = ${n}" for n, i in enumerate(ordinals, 1))
    statement = _one_row(f"DELETE FROM {target.name} WHERE {condition}")
    for values in _rows(net.deletes.columns):
        yield statement, values


def writes(target: TargetTable, net: Net) -> Iterator[Statement]:
    """Update rows that were there, then insert those that were not."""
    rows = list(_rows(net.rows.columns))
    key = target.table.key_positions
    for row in (~net.fresh).nonzero()[0].tolist():
        unknown = {i for i, mask in net.unknown.items() if mask[row]}
        ordinals = [i for i in target.written if i not in key and i not in unknown] or list(key[:1])
        changes = ", ".join(f"{target.column(i)} = ${n}" for n, i in enumerate(ordinals, 1))
        condition = " AND ".join(f"{target.column(i)} = ${n}" for n, i in enumerate(key, len(ordinals) + 1))
        statement = _one_row(f"UPDATE {target.name} SET {changes} WHERE {condition}")
        yield statement, [rows[row][i] for i in (*ordinals, *key)]
    yield from _inserts(target, [rows[row] for row in net.fresh.nonzero()[0].tolist()])


def additions(target: TargetTable, net: NetRows) -> Iterator[Statement]:
    """Insert rows of a table without a key."""
    if target.written:
        yield from _inserts(target, list(_rows(net.added.columns)))
    elif net.added.num_rows:
        yield f"INSERT INTO {target.name} SELECT FROM generate_series(1, {net.added.num_rows})", ()


def _inserts(target: TargetTable, rows: Sequence[Sequence[str | None]]) -> Iterator[Statement]:
    ordinals = target.written
    names, places = ", ".join(map(target.column, ordinals)), ", ".join(f"${n}" for n in range(1, len(ordinals) + 1))
    statement = f"INSERT INTO {target.name} ({names}) OVERRIDING SYSTEM VALUE VALUES ({places})"
    for values in rows:
        yield statement, [values[i] for i in ordinals]


def _one_row(statement: str) -> str:
    """Make a statement fail, by division, unless it touches a row."""
    return f"WITH touched AS ({statement} RETURNING 1) SELECT 1 / count(*) FROM touched"


def _rows(columns: Sequence[pa.ChunkedArray]) -> Iterator[tuple[str | None, ...]]:
    return zip(*(text_form(column).to_pylist() for column in columns), strict=True)
