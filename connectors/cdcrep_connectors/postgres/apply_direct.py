"""Applies a small batch in one round trip: BEGIN, one prepared statement per row, the position, COMMIT.

Every statement fails unless it does exactly what the change says: touch one row. Then nothing is committed and the
batch goes the general way, which knows what to do about rows that are missing or already there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import psycopg
import pyarrow as pa

from cdcrep.fold import Net, NetRows
from cdcrep_connectors.postgres.copy_text import text_form
from cdcrep_connectors.postgres.key_match import KeyMatch
from cdcrep_connectors.postgres.round_trip import Statement
from cdcrep_connectors.postgres.session import Session
from cdcrep_connectors.postgres.target_tables import TargetTable

MOST_ROWS: Final = 64
"""Measured: from about 100 rows on, staging them costs both sides less."""
MOST_BYTES: Final = 1 << 20


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
    try:
        session.round_trip.run([("BEGIN", ()), *statements, ("COMMIT", ())])
    except (psycopg.DataError, psycopg.IntegrityError):
        session.connection.rollback()
        return False
    return True


class DirectStatements:
    """The statements, one per row, that apply small changes to one target table."""

    def __init__(self, target: TargetTable, match: KeyMatch) -> None:
        self._target, self._match = target, match
        self._updates: dict[frozenset[int], tuple[str, list[int]]] = {}
        names = [target.column(i) for i in target.written]
        places = ", ".join(f"${n}" for n in range(1, len(names) + 1))
        self._insert = f"INSERT INTO {target.name} ({', '.join(names)}) OVERRIDING SYSTEM VALUE VALUES ({places})"
        self._delete = _one_row(f"DELETE FROM {target.name} WHERE {self._with_key(1)}") if target.table.key else ""

    def deletes(self, net: Net) -> Iterator[Statement]:
        """Delete each key."""
        for values in _rows(net.deletes.columns):
            yield self._delete, values

    def writes(self, net: Net) -> Iterator[Statement]:
        """Update rows that were there, then insert those that were not."""
        rows = list(_rows(net.rows.columns))
        for row in np.flatnonzero(~net.fresh).tolist():
            unknown = frozenset(i for i, mask in net.unknown.items() if mask[row])
            if unknown not in self._updates:
                self._updates[unknown] = self._update(unknown)
            statement, ordinals = self._updates[unknown]
            yield statement, [rows[row][i] for i in ordinals]
        yield from self._inserts([rows[row] for row in np.flatnonzero(net.fresh).tolist()])

    def additions(self, net: NetRows) -> Iterator[Statement]:
        """Insert rows of a table without a key."""
        if self._target.written:
            yield from self._inserts(list(_rows(net.added.columns)))
        else:
            for _ in range(net.added.num_rows):
                yield f"INSERT INTO {self._target.name} DEFAULT VALUES", ()

    def _inserts(self, rows: Sequence[Sequence[bytes | None]]) -> Iterator[Statement]:
        ordinals = self._target.written
        for values in rows:
            yield self._insert, [values[i] for i in ordinals]

    def _update(self, unknown: frozenset[int]) -> tuple[str, list[int]]:
        """Write the statement that sets all known columns, and say which columns its parameters are."""
        target, key = self._target, self._target.table.key_positions
        ordinals = [i for i in target.written if i not in key and i not in unknown] or list(key[:1])
        changes = ", ".join(f"{target.column(i)} = ${n}" for n, i in enumerate(ordinals, 1))
        condition = self._with_key(len(ordinals) + 1)
        return _one_row(f"UPDATE {target.name} SET {changes} WHERE {condition}"), [*ordinals, *key]

    def _with_key(self, first: int) -> str:
        columns = [self._target.column(i) for i in self._target.table.key_positions]
        return self._match.same(columns, [f"${n}" for n in range(first, first + len(columns))])


def _one_row(statement: str) -> str:
    """Make a statement fail, by division, unless it touches a row."""
    return f"WITH touched AS ({statement} RETURNING 1) SELECT 1 / count(*) FROM touched"


def _rows(columns: Sequence[pa.ChunkedArray]) -> Iterator[tuple[bytes | None, ...]]:
    return zip(*(text_form(column).cast(pa.binary()).to_pylist() for column in columns), strict=True)
