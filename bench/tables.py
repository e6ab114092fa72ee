"""The tables that the workloads write, and how to tell that two databases hold the same rows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import psycopg
import pymysql

BENCH_DDL: Final = """
    CREATE TABLE bench (id bigint PRIMARY KEY, a int, b bigint, c numeric(12,2), d text, e timestamptz, f boolean,
                        g jsonb, h double precision, i varchar(64))
"""
MARK_DDL: Final = "CREATE TABLE mark (number int PRIMARY KEY, token text NOT NULL)"

# About 200 bytes a row. The doubles are multiples of 1/1024: exact in every text form.
BENCH_VALUES: Final = """
    (random() * 1e9)::int, (random() * 1e15)::bigint, (random() * 1e9)::numeric(12,2), md5(random()::text) || {id},
    timestamptz '2024-01-01 UTC' + random() * interval '700 days', random() < 0.5,
    jsonb_build_object('status', 'open', 'score', (random() * 1000)::int, 'tags', jsonb_build_array('a', 'b')),
    floor(random() * 1e9) / 1024, 'customer number ' || {id}
"""

ROW_NUMBER_LENGTH: Final = 15
"""Hexadecimal digits of a row's SHA-256 that count: 60 bits, which fit a signed 64-bit integer."""


@dataclass(frozen=True)
class Contents:
    """A table's columns as expressions that yield the same text in every database."""

    table: str
    postgres: Sequence[str]
    duckdb: Sequence[str]
    mysql: Sequence[str] = ()
    """Empty where no such server has the table."""


BENCH: Final = Contents(
    "public.bench",
    ("id", "a", "b", "c", "d", "(extract(epoch FROM e) * 1000000)::bigint", "f::int", "g", "(h * 1024)::bigint", "i"),
    ("id", "a", "b", "c::decimal(12,2)", "d", "epoch_us(e)", "f::int", "g", "(h * 1024)::bigint", "i"),
)
# ConnectorX writes JSON anew, without blanks and in another order: equal as JSON is as much as it can be.
BENCH_WITH_JSON_REWRITTEN: Final = Contents(
    BENCH.table,
    tuple("g->>'score'" if column == "g" else column for column in BENCH.postgres),
    tuple("g->>'score'" if column == "g" else column for column in BENCH.duckdb),
)
PGBENCH: Final = (
    Contents("public.pgbench_accounts", ("aid", "bid", "abalance"), ("aid", "bid", "abalance")),
    Contents("public.pgbench_branches", ("bid", "bbalance"), ("bid", "bbalance")),
    Contents("public.pgbench_tellers", ("tid", "bid", "tbalance"), ("tid", "bid", "tbalance")),
    Contents(
        "public.pgbench_history",
        ("tid", "bid", "aid", "delta", "(extract(epoch FROM mtime) * 1000000)::bigint"),
        ("tid", "bid", "aid", "delta", "epoch_us(mtime)"),
    ),
)

Digest = Mapping[str, tuple[int, int]]
"""Table name to its number of rows and the sum of a 60-bit hash of every row."""


def postgres_digest(connection: psycopg.Connection[Any], tables: Sequence[Contents]) -> Digest:
    """Count and hash the rows of PostgreSQL tables."""
    digest: dict[str, tuple[int, int]] = {}
    for contents in tables:
        row = f"convert_to(concat_ws('|', {', '.join(contents.postgres)}), 'UTF8')"
        number = f"('x' || substr(encode(sha256({row}), 'hex'), 1, {ROW_NUMBER_LENGTH}))::bit(60)::bigint"
        statement = f"SELECT count(*), coalesce(sum({number}), 0) FROM {contents.table}"
        (counted,) = connection.execute(statement.encode()).fetchall()
        digest[contents.table] = (int(counted[0]), int(counted[1]))
    return digest


def duckdb_digest(file: Path, tables: Sequence[Contents]) -> Digest:
    """Count and hash the rows of tables in a DuckDB file that no process holds."""
    digest: dict[str, tuple[int, int]] = {}
    with duckdb.connect(str(file), read_only=True) as connection:
        for contents in tables:
            row = f"concat_ws('|', {', '.join(contents.duckdb)})"
            number = f"('0x' || substr(sha256({row}), 1, {ROW_NUMBER_LENGTH}))::bigint"
            (counted,) = connection.sql(f"SELECT count(*), coalesce(sum({number}), 0) FROM {contents.table}").fetchall()
            digest[contents.table] = (int(counted[0]), int(counted[1]))
    return digest


def mysql_digest(connection: pymysql.Connection[Any], tables: Sequence[Contents]) -> Digest:
    """Count and hash the rows of MySQL's or MariaDB's tables."""
    digest: dict[str, tuple[int, int]] = {}
    with connection.cursor() as cursor:
        for contents in tables:
            row = f"concat_ws('|', {', '.join(contents.mysql)})"
            number = f"CAST(conv(substr(sha2({row}, 256), 1, {ROW_NUMBER_LENGTH}), 16, 10) AS unsigned)"
            cursor.execute(f"SELECT count(*), coalesce(sum({number}), 0) FROM {contents.table}")
            (counted,) = cursor.fetchall()
            digest[contents.table] = (int(counted[0]), int(counted[1]))
    return digest


def difference(source: Digest, target: Digest) -> str:
    """Say in one line how two digests differ; empty where they do not."""
    found = []
    for table, (rows, checksum) in source.items():
        rows_there, checksum_there = target[table]
        if rows != rows_there:
            found.append(f"{table} has {rows_there:,} rows instead of {rows:,}")
        elif checksum != checksum_there:
            found.append(f"{table} has the right number of rows and other values")
    return "; ".join(found)
