"""Random histories of a source database: transactions over tables of every kind that replication tells apart."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import psycopg

SCHEMA = """
CREATE SCHEMA {0};
SET search_path = {0};
CREATE TABLE plain (id int PRIMARY KEY, n int, big text);
CREATE TABLE pair (a int, b text, v text, big text, PRIMARY KEY (a, b));
CREATE TABLE bag (x int, y text);
CREATE TABLE wide (id int PRIMARY KEY, n int, big text);
CREATE TABLE coded (code text NOT NULL UNIQUE, n int, big text);
CREATE TABLE swapped (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, big text);
ALTER TABLE bag REPLICA IDENTITY FULL;
ALTER TABLE wide REPLICA IDENTITY FULL;
ALTER TABLE swapped REPLICA IDENTITY FULL;
ALTER TABLE coded REPLICA IDENTITY USING INDEX coded_code_key;
ALTER TABLE plain ALTER COLUMN big SET STORAGE EXTERNAL;
ALTER TABLE pair ALTER COLUMN big SET STORAGE EXTERNAL;
ALTER TABLE wide ALTER COLUMN big SET STORAGE EXTERNAL;
ALTER TABLE coded ALTER COLUMN big SET STORAGE EXTERNAL;
ALTER TABLE swapped ALTER COLUMN big SET STORAGE EXTERNAL;
"""
# `%(k)s`, `%(l)s`: keys out of few, so that they meet; `%(big)s`: a value that is stored out of line, or a short one.
STATEMENTS = (
    "INSERT INTO plain VALUES (%(k)s, %(n)s, %(big)s)",
    "INSERT INTO plain VALUES (%(k)s, %(n)s, %(big)s)",
    "UPDATE plain SET n = %(n)s WHERE id = %(k)s",
    "UPDATE plain SET n = n + 1",
    "UPDATE plain SET big = %(big)s WHERE id = %(k)s",
    "UPDATE plain SET id = %(l)s WHERE id = %(k)s",
    "UPDATE plain SET id = id + 100 WHERE id < 100",
    "UPDATE plain SET id = id - 100, n = 0 WHERE id > 100",
    "DELETE FROM plain WHERE id = %(k)s",
    "INSERT INTO pair VALUES (%(k)s, %(w)s, %(w)s, %(big)s)",
    "INSERT INTO pair VALUES (%(k)s, %(w)s, NULL, %(big)s)",
    "UPDATE pair SET v = %(w)s WHERE a = %(k)s",
    "UPDATE pair SET b = %(w)s WHERE a = %(k)s",
    "UPDATE pair SET a = %(l)s, big = %(big)s WHERE a = %(k)s",
    "DELETE FROM pair WHERE b = %(w)s",
    "INSERT INTO bag VALUES (%(k)s, %(w)s)",
    "INSERT INTO bag SELECT %(k)s, NULL FROM generate_series(1, 3)",
    "UPDATE bag SET y = %(w)s WHERE ctid IN (SELECT ctid FROM bag WHERE x = %(k)s LIMIT 1)",
    "UPDATE bag SET x = %(l)s WHERE x = %(k)s",
    "DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag LIMIT 2)",
    "INSERT INTO wide VALUES (%(k)s, %(n)s, %(big)s)",
    "UPDATE wide SET n = %(n)s WHERE id = %(k)s",
    "UPDATE wide SET id = %(l)s WHERE id = %(k)s",
    "DELETE FROM wide WHERE id = %(k)s",
    "INSERT INTO coded VALUES (%(w)s, %(n)s, %(big)s)",
    "UPDATE coded SET n = %(n)s WHERE code = %(w)s",
    "UPDATE coded SET code = code || '.' WHERE length(code) < 8",
    "UPDATE coded SET code = %(w)s WHERE n = %(n)s",
    "DELETE FROM coded WHERE n = %(n)s",
    "INSERT INTO swapped VALUES (%(k)s, %(big)s)",
    "UPDATE swapped SET id = %(k)s + %(l)s - id WHERE id IN (%(k)s, %(l)s)",
    "UPDATE swapped SET big = %(big)s WHERE id = %(k)s",
    "DELETE FROM swapped WHERE id = %(k)s",
)
TRUNCATES = (
    "TRUNCATE plain",
    "TRUNCATE bag, pair",
    "TRUNCATE wide RESTART IDENTITY",
    "TRUNCATE coded, swapped CASCADE",
)


def commit_history(connection: psycopg.Connection[Any], schema: str, rng: random.Random) -> None:
    """Commit a few random transactions on a schema's tables; some roll back, in whole or to a savepoint."""
    connection.execute(f"SET search_path = {schema}".encode())
    for _ in range(rng.randint(1, 6)):
        # A key that is taken at the commit, or a TRUNCATE while one is to be looked at (deferred constraint), rolls the
        # transaction back, as in real life.
        with (
            contextlib.suppress(psycopg.errors.UniqueViolation, psycopg.errors.ObjectInUse),
            connection.transaction(force_rollback=rng.random() < 0.1),
        ):
            for _ in range(rng.choice((1, 2, 3, 10))):
                _run(connection, rng)


def _run(connection: psycopg.Connection[Any], rng: random.Random) -> None:
    statement = rng.choice(TRUNCATES) if rng.random() < 0.01 else rng.choice(STATEMENTS)
    big = rng.choice((None, "", "short", chr(rng.randint(97, 122)) * rng.choice((2100, 5000)), "ä€😀\t\\\n" * 500))
    values = {
        "k": rng.randint(1, 8),
        "l": rng.randint(1, 8),
        "n": rng.randint(0, 4),
        "w": rng.choice(("a", "b", "\\N", "tab\t", "", "NULL")),
        "big": big,
    }
    with contextlib.suppress(psycopg.errors.UniqueViolation):
        rollback = rng.random() < 0.05
        with connection.transaction(force_rollback=rollback):
            connection.execute(statement.encode(), values)
