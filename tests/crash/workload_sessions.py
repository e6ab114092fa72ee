"""What a writer of the workload needs of each kind of database: its statements, and transactions that may fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, Protocol

import psycopg
import pymysql
from pymysql.constants import ER

from tests.crash.observer import connect_mysql
from tests.servers.database import Database
from tests.servers.mysql_database import MySQLDatabase

SourceDatabase = Database | MySQLDatabase

TABLES: Final = ("ledger", "accounts", "counters", "documents", "scratch")

POSTGRES_SCHEMA: Final = """
CREATE TABLE ledger (writer int NOT NULL, seq bigint NOT NULL, note text);
ALTER TABLE ledger REPLICA IDENTITY FULL;
CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL, owner text);
CREATE TABLE counters (writer int PRIMARY KEY, value bigint NOT NULL);
CREATE TABLE documents (id bigint PRIMARY KEY, version bigint NOT NULL, body text);
ALTER TABLE documents ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE scratch (id bigint PRIMARY KEY, word text);
ALTER TABLE scratch REPLICA IDENTITY FULL;
INSERT INTO accounts SELECT i, 100, 'owner ' || i FROM generate_series(1, 500) i;
INSERT INTO documents SELECT i, 0, repeat(md5(i::text), 100) FROM generate_series(1, 60) i;
"""

MYSQL_SCHEMA: Final = """
CREATE TABLE ledger (writer int NOT NULL, seq bigint NOT NULL, note text);
CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL, owner text);
CREATE TABLE counters (writer int PRIMARY KEY, value bigint NOT NULL);
CREATE TABLE documents (id bigint PRIMARY KEY, version bigint NOT NULL, body mediumtext);
CREATE TABLE scratch (id bigint PRIMARY KEY, word text);
INSERT INTO accounts WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 500)
    SELECT i, 100, concat('owner ', i) FROM s;
INSERT INTO documents WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 60)
    SELECT i, 0, repeat(sha2(i, 256), 50) FROM s;
"""

LOST: Final = (
    psycopg.OperationalError,
    pymysql.OperationalError,
    pymysql.InterfaceError,
    # Of a packet that was cut off.
    pymysql.InternalError,
    OSError,
)
"""Raised where a connection is lost, and with it the outcome of what was under way."""


class Session(Protocol):
    """A connection of one writer."""

    unless_there: ClassVar[str]
    """Makes of `INSERT INTO t VALUES (…)` one that leaves a row of the same key alone."""
    truncates_in_transactions: ClassVar[bool]
    truncates: ClassVar[float]
    """The part of all transactions that empty a table, or come after that where it is a transaction of its own."""

    def execute(self, statement: str, values: Sequence[object] = ()) -> None:
        """Run a statement with `%s` parameters, if there are any."""
        ...

    def last_seq(self, writer: int) -> int:
        """Return the newest number of a writer in the ledger."""
        ...

    def commit(self, work: Callable[[], None], *, but_roll_back: bool) -> bool:
        """Do work in a transaction; tell whether it was committed, or was rolled back, if only by losing a race."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


LAST_SEQ: Final = "SELECT coalesce(max(seq), 0) FROM ledger WHERE writer = %s"


class PostgresSession:
    """A writer's connection to PostgreSQL."""

    unless_there: ClassVar[str] = "INSERT INTO {} ON CONFLICT DO NOTHING"
    truncates_in_transactions: ClassVar[bool] = True
    truncates: ClassVar[float] = 0.03

    def __init__(self, database: Database) -> None:
        self._connection = database.connect()

    def execute(self, statement: str, values: Sequence[object] = ()) -> None:
        """Run a statement."""
        self._connection.execute(statement.encode(), values or None)

    def last_seq(self, writer: int) -> int:
        """Return the newest number of a writer in the ledger."""
        row = self._connection.execute(LAST_SEQ, (writer,)).fetchone()
        assert row is not None
        return int(row[0])

    def commit(self, work: Callable[[], None], *, but_roll_back: bool) -> bool:
        """Do work in a transaction; tell whether it was committed."""
        try:
            with self._connection.transaction(force_rollback=but_roll_back):
                work()
        except (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation):
            return False
        return not but_roll_back

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class MySQLSession:
    """A writer's connection to MySQL or MariaDB."""

    unless_there: ClassVar[str] = "INSERT IGNORE INTO {}"
    truncates_in_transactions: ClassVar[bool] = False
    # Rarer, because each lets every copy of the table begin again that has a view of it already. On a slow machine the
    # view is seconds old before the table is read, where other tables' interrupted copies are completed.
    truncates: ClassVar[float] = 0.0005

    RACES: ClassVar = (ER.LOCK_DEADLOCK, ER.DUP_ENTRY, 1020)
    """1020: MariaDB's answer to a row that has changed since the transaction's view of it."""

    def __init__(self, database: MySQLDatabase) -> None:
        self._connection: pymysql.Connection[Any] = connect_mysql(database.url)
        # Fewer deadlocks.
        self.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")

    def execute(self, statement: str, values: Sequence[object] = ()) -> None:
        """Run a statement."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)

    def last_seq(self, writer: int) -> int:
        """Return the newest number of a writer in the ledger."""
        with self._connection.cursor() as cursor:
            cursor.execute(LAST_SEQ, (writer,))
            ((seq,),) = cursor.fetchall()
        return int(seq)

    def commit(self, work: Callable[[], None], *, but_roll_back: bool) -> bool:
        """Do work in a transaction; tell whether it was committed."""
        self._connection.begin()
        try:
            work()
        except pymysql.MySQLError as error:
            if error.args[0] not in self.RACES:
                raise
            but_roll_back = True
        if but_roll_back:
            self._connection.rollback()
        else:
            self._connection.commit()
        return not but_roll_back

    def close(self) -> None:
        """End the connection."""
        if self._connection.open:
            self._connection.close()


def connect(database: SourceDatabase) -> Session:
    """Open a writer's connection."""
    return PostgresSession(database) if isinstance(database, Database) else MySQLSession(database)


def run_script(database: SourceDatabase, script: str) -> None:
    """Run statements that are separated by semicolons."""
    if isinstance(database, Database):
        database.execute(script)
        return
    with connect_mysql(database.url) as connection, connection.cursor() as cursor:
        for statement in filter(str.strip, script.split(";")):
            cursor.execute(statement)


def create_tables(database: SourceDatabase) -> None:
    """Create and fill the tables of the workload."""
    run_script(database, POSTGRES_SCHEMA if isinstance(database, Database) else MYSQL_SCHEMA)
