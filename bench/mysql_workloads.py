"""What is written at a source of MySQL or MariaDB while no consumer runs: W1m and W2m, and the table of W5m."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from bench.mysql_servers import MySQLDatabases
from bench.tables import BENCH, Contents
from bench.workloads import INSERTS_PER_TRANSACTION, UPDATES_PER_TRANSACTION, Workload

STATEMENT_ROWS: Final = INSERTS_PER_TRANSACTION
FILL_ROWS: Final = 10_000
"""Rows of one statement that fills a table before a measurement."""
RANDOM_ROWS: Final = 200_000
"""Rows that are random; of a larger table the others are these with other keys, which is written in a third of the
time."""

DDL: Final = (
    """
    CREATE TABLE bench (id BIGINT PRIMARY KEY, a INT, b BIGINT, c DECIMAL(12,2), d TEXT, e TIMESTAMP(6) NULL,
                        f BOOLEAN, g JSON, h DOUBLE, i VARCHAR(64))
    """,
    "CREATE TABLE mark (number INT PRIMARY KEY, token VARCHAR(100) NOT NULL)",
    "CREATE TABLE numbers (n INT PRIMARY KEY)",
    "INSERT INTO numbers WITH RECURSIVE d (x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM d WHERE x < 9) "
    "SELECT a.x + 10 * b.x + 100 * c.x + 1000 * d.x FROM d a, d b, d c, d",
)

# As PostgreSQL's rows; MySQL 9.7 has no MD5() of its own. Both servers and every target write these JSON texts alike.
VALUES: Final = """
    FLOOR(RAND() * 1e9), FLOOR(RAND() * 1e15), ROUND(RAND() * 1e9, 2), CONCAT(LEFT(SHA2(RAND(), 224), 32), id),
    TIMESTAMP '2024-01-01 00:00:00' + INTERVAL FLOOR(RAND() * 700 * 86400e6) MICROSECOND, RAND() < 0.5,
    CONCAT('{"tags": ["a", "b"], "score": ', CAST(FLOOR(RAND() * 1000) AS SIGNED), ', "status": "open"}'),
    FLOOR(RAND() * 1e9) / 1024, CONCAT('customer number ', id)
"""
UPDATES: Final = """
    CREATE PROCEDURE write_updates(transactions INT, statements INT, row_count INT)
    BEGIN
        DECLARE t INT DEFAULT 1;
        DECLARE n INT;
        DECLARE chosen BIGINT;
        WHILE t <= transactions DO
            START TRANSACTION;
            SET n = 0;
            WHILE n < statements DO
                SET chosen = 1 + FLOOR(RAND() * row_count), n = n + 1;
                UPDATE bench SET a = t, b = FLOOR(RAND() * 1e15), c = ROUND(RAND() * 1e9, 2),
                    d = CONCAT(LEFT(SHA2(RAND(), 224), 32), chosen), e = NOW(6), h = FLOOR(RAND() * 1e9) / 1024
                WHERE id = chosen;
            END WHILE;
            COMMIT;
            SET t = t + 1;
        END WHILE;
    END
"""


def contents_of(database: str) -> Contents:
    """The table `bench` of a database."""
    return Contents(
        f"{database}.bench",
        BENCH.postgres,
        BENCH.duckdb,
        (
            *("id", "a", "b", "c", "d"),
            *("CAST(unix_timestamp(e) * 1000000 AS SIGNED)", "f", "g", "CAST(h * 1024 AS SIGNED)", "i"),
        ),
    )


def inserts(source: MySQLDatabases, name: str, changes: int) -> Workload:
    """W1m: inserts, 1,000 a statement and transaction."""
    statements = changes // STATEMENT_ROWS

    def write(database: str) -> None:
        ((first,),) = source.execute(database, "SELECT coalesce(max(id), 0) + 1 FROM bench")
        with quick_commits(source):
            source.execute(
                database,
                *(_insert(first + number * STATEMENT_ROWS, STATEMENT_ROWS) for number in range(statements)),
            )

    title = f"{changes:,} inserts, {STATEMENT_ROWS:,} a statement"
    return _workload(source, name, title, statements * STATEMENT_ROWS, 0, write)


def updates(source: MySQLDatabases, name: str, changes: int, rows: int) -> Workload:
    """W2m: single-row updates (a to e and h change) of random rows, 10 a transaction."""
    transactions = changes // UPDATES_PER_TRANSACTION

    def write(database: str) -> None:
        with quick_commits(source):
            source.execute(database, f"CALL write_updates({transactions}, {UPDATES_PER_TRANSACTION}, {rows})")

    title = f"{changes:,} single-row updates of {rows:,} rows, random keys, {UPDATES_PER_TRANSACTION} a transaction"
    return _workload(source, name, title, transactions * UPDATES_PER_TRANSACTION, rows, write)


def create_bench(source: MySQLDatabases, database: str, rows: int) -> None:
    """Create the tables `bench`, with the keys 1 to `rows`, and `mark`."""
    with quick_commits(source):
        source.execute(database, *DDL, UPDATES)
        source.execute(
            database,
            *(_fill(first, min(FILL_ROWS, rows - first + 1)) for first in range(1, rows + 1, FILL_ROWS)),
        )
    source.settle(database)


def _fill(first: int, rows: int) -> str:
    if first <= RANDOM_ROWS:
        return _insert(first, rows)
    like = (first - 1) % RANDOM_ROWS + 1
    return (
        f"INSERT INTO bench SELECT id + {first - like}, a, b, c, CONCAT(LEFT(d, 32), id + {first - like}), e, f, g, h, "
        f"CONCAT('customer number ', id + {first - like}) FROM bench WHERE id BETWEEN {like} AND {like + rows - 1}"
    )


def _insert(first: int, rows: int) -> str:
    keys = f"SELECT {first} + n AS id FROM numbers WHERE n < {rows}"
    return f"INSERT INTO bench SELECT id, {VALUES} FROM ({keys}) AS keys_to_write"


@contextmanager
def quick_commits(source: MySQLDatabases) -> Iterator[None]:
    """Let the source not sync for a while: the log that the consumers read is the same, only the writing is quicker."""
    source.execute("", "SET GLOBAL sync_binlog = 0", "SET GLOBAL innodb_flush_log_at_trx_commit = 2")
    try:
        yield
    finally:
        source.execute("", "SET GLOBAL sync_binlog = 1", "SET GLOBAL innodb_flush_log_at_trx_commit = 1")


def _workload(
    source: MySQLDatabases, name: str, title: str, changes: int, rows: int, write: Callable[[str], None]
) -> Workload:
    database = name.lower().replace("-", "_")
    return Workload(
        name=name,
        title=title,
        changes=changes,
        include=[f"{database}.bench", f"{database}.mark"],
        contents=[contents_of(database)],
        set_up=lambda database: create_bench(source, database, rows),
        write=write,
        mark_table=f"{database}.mark",
    )
