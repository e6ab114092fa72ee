"""One session of the sink: statements with `$n` parameters, COPY from Arrow, savepoints, cancelling from outside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg
import pyarrow as pa

from cdcrep.connector import Pipeline
from cdcrep.errors import TransientError
from cdcrep_connectors.postgres.connection import connect
from cdcrep_connectors.postgres.copy_text import copy_text
from cdcrep_connectors.postgres.options import ServerOptions
from cdcrep_connectors.postgres.round_trip import RoundTrip

RawConnection = psycopg.Connection[tuple[Any, ...]]
RawCursor = psycopg.RawCursor[tuple[Any, ...]]
Rows = list[tuple[Any, ...]]

CONFLICTS: Final = (psycopg.errors.UniqueViolation, psycopg.errors.ExclusionViolation)
"""What a statement meets that collides with rows which a different order of the same changes would move away first."""

PLANNER: Final = {"enable_hashjoin": "off", "enable_mergejoin": "off"}
"""A batch finds its rows by the index of the key. Reading the whole table for a hash join, which the planner prefers
from some thousand rows on, costs twice as much where updates have bloated the table, and more the larger it is."""

IDLE_FACTOR: Final = 10
"""A large transaction's pieces may be this many times `transaction_timeout` apart. A process that was stopped for
longer loses its session, and with it the locks that keep its successor waiting."""


class Session:
    """A connection in autocommit mode whose transactions are begun and ended by statements."""

    def __init__(self, options: ServerOptions, pipeline: Pipeline, *, statement_timeout: float) -> None:
        self.cancelled = False
        timeout = pipeline.transaction_timeout
        self.connection: RawConnection = connect(
            options,
            application_name=f"cdcrep {pipeline.name}",
            statement_timeout=statement_timeout,
            lock_timeout=timeout,
            idle_in_transaction_timeout=timeout * IDLE_FACTOR,
            settings={"synchronous_commit": "on", **PLANNER},
        )
        self.round_trip = RoundTrip(self.connection)
        self.cursor: RawCursor = psycopg.RawCursor(self.connection)
        self.replica = self._disable_triggers()

    def _disable_triggers(self) -> bool:
        """Take the role of a replica, in which the target's triggers and foreign keys stay silent, where permitted."""
        try:
            self.execute("SET session_replication_role = replica")
        except psycopg.errors.InsufficientPrivilege:
            return False
        return True

    def execute(self, statement: str, *values: Any) -> RawCursor:
        """Run one statement with `$1`, `$2`… parameters; nothing in its text needs escaping beyond quoted names."""
        self.check()
        # Never prepared: a plan made for a small stage must not be kept for a large one.
        return self.cursor.execute(statement.encode(), values or None, prepare=False)

    def fetch(self, statement: str, *values: Any) -> Rows:
        """Run one query and return its rows."""
        return self.execute(statement, *values).fetchall()

    def copy(self, statement: str, columns: Sequence[pa.ChunkedArray], rows: int) -> int:
        """Run a COPY … FROM STDIN statement in text format with these Arrow columns; return the bytes sent."""
        self.check()
        size = 0
        with self.cursor.copy(statement.encode()) as copy:
            for piece in copy_text(columns, rows):
                self.check()
                copy.write(piece)
                size += len(piece)
        return size

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what the block did if it fails, and let the exception pass."""
        self.execute("SAVEPOINT attempt")
        try:
            yield
        except psycopg.Error:
            if not self.connection.closed:
                self.cursor.execute(b"ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt")
            raise
        self.execute("RELEASE SAVEPOINT attempt")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block did, or roll it back."""
        self.execute("BEGIN")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                self.connection.rollback()
            raise

    def check(self) -> None:
        """Raise TransientError if the session was cancelled."""
        if self.cancelled:
            raise TransientError("the target transaction was cancelled")

    def cancel(self) -> None:
        """Make the running statement fail, and every later one; thread-safe."""
        self.cancelled = True
        with contextlib.suppress(psycopg.Error):
            self.connection.cancel_safe(timeout=5.0)

    def close(self) -> None:
        """End the session; the server rolls back what is open."""
        with contextlib.suppress(psycopg.Error):
            self.connection.close()
