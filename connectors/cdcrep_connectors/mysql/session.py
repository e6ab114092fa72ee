"""One session of the sink: transactions, bulk statements from Arrow, cancelling from outside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import pymysql
from pymysql.constants import ER

from cdcrep.connector import Pipeline
from cdcrep.errors import SetupError, TransientError
from cdcrep.table import Table
from cdcrep_connectors.mysql.address import Address, parse
from cdcrep_connectors.mysql.bulk_values import LINES, NamedRows, conditions, lines, value_lists
from cdcrep_connectors.mysql.column_text import is_hex
from cdcrep_connectors.mysql.column_types import Dialect
from cdcrep_connectors.mysql.connection import LENIENT_MODE, STRICT_MODE, Connection, connect, is_mariadb
from cdcrep_connectors.mysql.failures import DRIVER_ERRORS, error_number
from cdcrep_connectors.mysql.invalid_labels import divided, expected, in_pieces, unexpected
from cdcrep_connectors.mysql.load_local import NAME, load_local
from cdcrep_connectors.mysql.options import ServerOptions
from cdcrep_connectors.mysql.refused_geometries import refused_geometry

Rows = list[tuple[Any, ...]]

STATEMENT_BYTES: Final = 1 << 20
"""About the size of a bulk INSERT: larger ones are not quicker."""
STATEMENT_MARGIN: Final = 4096
"""What `max_allowed_packet` must hold besides the rows of a statement that are counted."""
KILL_TIMEOUT: Final = 5.0

LOADED_ROWS: Final = 100
"""Rows from which LOAD DATA is quicker than INSERT."""
LOAD_FORBIDDEN: Final = frozenset({1148, 3948, 4166})
"""ER_NOT_ALLOWED_COMMAND, ER_CLIENT_LOCAL_FILES_DISABLED, MariaDB's ER_LOAD_INFILE_CAPABILITY_DISABLED."""


class Session:
    """A connection in autocommit mode whose transactions are begun and ended by statements."""

    def __init__(self, options: ServerOptions, pipeline: Pipeline, *, statement_timeout: float) -> None:
        self.cancelled = False
        self.in_transaction = False
        self._options = options
        self._running = False
        self._connection: Connection = connect(
            options,
            program_name="cdcrep",
            statement_timeout=statement_timeout,
            lock_timeout=pipeline.transaction_timeout,
            # Each row is applied once, in the order that the source committed: its own checks have been made.
            settings={
                "foreign_key_checks": "0",
                "unique_checks": "1",
                # What it warns of is understood.
                "lc_messages": "'en_US'",
            },
            local_data=True,
        )
        try:
            self._id: int = self._connection.thread_id()  # type: ignore[no-untyped-call]
            self.dialect = Dialect(is_mariadb(self._connection))
            # No gap locks: loaders that write side by side would wait for each other.
            self.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            ((self._packet, self.loads, self._shown_warnings),) = self.fetch(
                "SELECT @@max_allowed_packet, @@local_infile, @@max_error_count"
            )
        except BaseException:
            self._connection.close()
            raise

    def execute(self, statement: str, *values: Any) -> int:
        """Run one statement with `%s` parameters, if there are any; return how many rows it changed."""
        with self._statement() as cursor:
            return int(cursor.execute(statement, values or None))

    def fetch(self, statement: str, *values: Any) -> Rows:
        """Run one query and return its rows."""
        with self._statement() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def query(self, statement: str) -> tuple[list[str], Rows]:
        """Run one statement; return the names of its columns and its rows."""
        with self._statement() as cursor:
            cursor.execute(statement)
            return [column[0] for column in cursor.description or ()], list(cursor.fetchall())

    def insert(self, into: str, rows: NamedRows) -> int:
        """Insert rows into a table; return the bytes sent.

        In a transaction only: what the server has done with rows that it does not take is rolled back.

        Raises:
            SetupError: a row is larger than the server takes.
            DataError: a value does not fit.
        """
        valid, invalid = divided(rows)
        try:
            size = 0 if invalid is None else self._insert_invalid(into, invalid)
            if self.loads and valid.count >= LOADED_ROWS and (loaded := self._load(into, valid)) is not None:
                return size + loaded
            return size + self._insert(into, valid)
        except pymysql.MySQLError as error:
            if error_number(error) == ER.CANT_CREATE_GEOMETRY_OBJECT:
                raise refused_geometry(rows) from None
            raise

    def _insert(self, into: str, rows: NamedRows, warnings: Rows | None = None) -> int:
        head, size = f"INSERT INTO {into} ({', '.join(rows.names)}) VALUES ".encode(), 0
        most = self._packet - STATEMENT_MARGIN - len(head)
        for piece in value_lists(rows, min(STATEMENT_BYTES, most), self.dialect):
            self._check_size(rows.table, len(piece), most)
            self.run(head + piece, warnings)
            size += len(piece)
        return size

    def _insert_invalid(self, into: str, rows: NamedRows) -> int:
        """Insert rows with an ENUM's 0; return the bytes sent.

        Raises:
            pymysql.DataError: the server has changed another value.
        """
        size = 0
        self.execute(f"SET SESSION sql_mode = '{LENIENT_MODE}'")
        try:
            for piece in in_pieces(rows, self._shown_warnings):
                warnings: Rows = []
                size += self._insert(into, piece, warnings)
                if (wrong := unexpected(warnings, expected(piece))) is not None:
                    raise pymysql.DataError(*wrong)
        finally:
            self.execute(f"SET SESSION sql_mode = '{STRICT_MODE}'")
        return size

    def _load(self, into: str, rows: NamedRows) -> int | None:
        """Insert rows by LOAD DATA; return the bytes sent, or None if INSERT must do it, or say what is wrong."""
        bytes_ = [i for i, column in enumerate(rows.columns) if is_hex(column, self.dialect)]
        places = [f"@cdcrep_{i}" if i in bytes_ else name for i, name in enumerate(rows.names)]
        computed = ", ".join(f"{rows.names[i]} = UNHEX(@cdcrep_{i})" for i in bytes_)
        statement = (
            f"LOAD DATA LOCAL INFILE '{NAME}' INTO TABLE {into} {LINES} ({', '.join(places)})"
            f"{' SET ' if computed else ''}{computed}"
        )
        size, most = 0, self._packet - STATEMENT_MARGIN

        def pieces() -> Iterator[memoryview]:
            nonlocal size
            for piece in lines(rows, min(STATEMENT_BYTES, most), self.dialect):
                self._check_size(rows.table, len(piece), most)
                self.check()
                size += len(piece)
                yield piece

        self.execute("SAVEPOINT loading")
        with self._statement():
            try:
                loaded = load_local(self._connection, statement.encode(), pieces())
            except pymysql.MySQLError as error:
                if error.args[0] not in LOAD_FORBIDDEN:
                    raise
                self.loads = 0
                return None
        if loaded.rows == rows.count and not loaded.complaints:
            return size
        # The server goes on after a row that does not fit, and does not say what is wrong with it. INSERT does.
        self.execute("ROLLBACK TO SAVEPOINT loading")
        return None

    def _check_size(self, table: Table, size: int, most: int) -> None:
        if size > most:
            raise SetupError(
                f"{table.id}: a row of {size} bytes does not fit into a statement of the target, which takes "
                f"{self._packet} (max_allowed_packet)",
                hint="SET GLOBAL max_allowed_packet = 1073741824;  -- in the target, and in its configuration",
            )

    def delete(self, name: str, rows: NamedRows) -> int:
        """Delete the rows of a table whose columns hold one of these rows' values; return how many there were."""
        head = f"DELETE FROM {name} WHERE ".encode()
        return sum(self.run(head + condition) for condition in conditions(rows, self.dialect))

    def run(self, statement: bytes, warnings: Rows | None = None) -> int:
        """Run a statement that is encoded already; return how many rows it changed.

        `warnings`: a list that takes them.

        Raises:
            pymysql.DataError: the server has changed a value, and no such list is given.
        """
        with self._statement() as cursor:
            changed = _execute_bytes(cursor, statement)
            warned = cursor.warning_count
        if warned:
            found = self.fetch("SHOW WARNINGS")
            if warnings is None or len(found) < warned:
                raise pymysql.DataError(*found[0][1:] if found else (ER.WARN_DATA_TRUNCATED, "a value was changed"))
            warnings += found
        return changed

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block did, or roll it back."""
        self.begin()
        try:
            yield
            self.commit()
        except BaseException:
            self.roll_back()
            raise

    @property
    def address(self) -> Address:
        """Where the server is."""
        return parse(self._options.url)

    def use_bookkeeping(self) -> None:
        """Make the bookkeeping's database the session's: without any, the servers refuse `DELETE t FROM … t`."""
        self.execute("USE cdcrep")

    @contextlib.contextmanager
    def lock_wait(self, seconds: int) -> Iterator[None]:
        """Wait for locks at most so long in the block."""
        ((before,),) = self.fetch("SELECT @@innodb_lock_wait_timeout")
        self.execute(f"SET SESSION innodb_lock_wait_timeout = {seconds:d}")
        try:
            yield
        finally:
            self.execute(f"SET SESSION innodb_lock_wait_timeout = {before:d}")

    def begin(self) -> None:
        """Begin a transaction."""
        self.execute("START TRANSACTION")
        self.in_transaction = True

    def commit(self) -> None:
        """Make the transaction durable."""
        self.execute("COMMIT")
        self.in_transaction = False

    def roll_back(self) -> None:
        """Undo the transaction that is open, if any; a lost connection does the same."""
        if self.in_transaction:
            self.in_transaction = False
            with contextlib.suppress(*DRIVER_ERRORS):
                self._connection.rollback()

    def cancel(self) -> None:
        """Make the running statement fail, and every later one; thread-safe."""
        self.cancelled = True
        if not self._running:
            return
        with contextlib.suppress(Exception):
            killer = connect(self._options, statement_timeout=KILL_TIMEOUT)
            try:
                with killer.cursor() as cursor:
                    cursor.execute(f"KILL QUERY {self._id}")
            finally:
                killer.close()

    def check(self) -> None:
        """Raise TransientError if the session was cancelled."""
        if self.cancelled:
            raise TransientError("the target transaction was cancelled")

    def kill(self, connection_id: int) -> bool:
        """End another session of ours; tell whether it was there and ours to end."""
        try:
            self.execute(f"KILL {connection_id:d}")
        except pymysql.MySQLError as error:
            if error.args[0] in (ER.NO_SUCH_THREAD, ER.KILL_DENIED_ERROR):
                return False
            raise
        return True

    def close(self) -> None:
        """Roll back what is open and end the session."""
        self.roll_back()
        with contextlib.suppress(*DRIVER_ERRORS):
            self._connection.close()

    @contextlib.contextmanager
    def _statement(self) -> Iterator[pymysql.cursors.Cursor]:
        self.check()
        with self._connection.cursor() as cursor:
            self._running = True
            try:
                # A cancel that came before `_running` was set has killed nothing.
                self.check()
                yield cursor
            finally:
                self._running = False


def _execute_bytes(cursor: Any, statement: bytes) -> int:
    # The driver's types do not know of bytes.
    return int(cursor.execute(statement))
