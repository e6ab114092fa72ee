"""Measures how fast PostgreSQL itself updates rows all over a large table: `python -m bench.big_updates`.

No replicator and no source: what W2-big asks for stands in a temporary table of the target, and one `UPDATE … FROM` per
batch, its rows in the order of the key, brings it in. What the target's disk and log cost no way of applying can avoid.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final

import click
import psycopg

from bench.clusters import Clusters
from bench.processes import cpu_times
from bench.workloads import create_bench

DATABASE: Final = "big"
COLUMNS: Final = ("a", "b", "c", "d", "e", "h")


@click.command(help=__doc__)
@click.option("--rows", default=20_000_000, show_default=True, help="Rows of the table.")
@click.option("--changes", default=1_000_000, show_default=True, help="Updates of random rows.")
@click.option("--batches", default="1000000,100000,20000", show_default=True, help="Changes in one transaction.")
def main(rows: int, changes: int, batches: str) -> None:
    with Clusters(15, Path(tempfile.gettempdir())) as clusters:
        cluster = clusters.target
        cluster.create_database(DATABASE)
        create_bench(cluster, DATABASE, rows)
        for batch in map(int, batches.split(",")):
            clusters.checkpoint()
            print(f"{batch:,} a transaction: {_measure(cluster.dsn(DATABASE), rows, changes, batch)}", flush=True)


def _measure(dsn: str, rows: int, changes: int, batch: int) -> str:
    assignments = ", ".join(f"{name} = s.{name}" for name in COLUMNS)
    with psycopg.connect(dsn, autocommit=True) as connection:
        execute = connection.execute
        execute(
            f"CREATE TEMPORARY TABLE wanted AS SELECT n, (1 + floor(random() * {rows}))::bigint AS id, n AS a, "
            "(random() * 1e15)::bigint AS b, (random() * 1e9)::numeric(12,2) AS c, md5(random()::text) AS d, "
            f"clock_timestamp() AS e, floor(random() * 1e9) / 1024 AS h FROM generate_series(1, {changes}) n".encode()
        )
        execute(b"CREATE TEMPORARY TABLE stage (LIKE wanted)")
        execute(b"SET enable_hashjoin = off")
        execute(b"SET enable_mergejoin = off")
        pid = connection.info.backend_pid
        before, log = cpu_times(pid), execute(b"SELECT pg_current_wal_lsn()").fetchone()
        began = time.monotonic()
        for first in range(0, changes, batch):
            with connection.transaction():
                execute(b"TRUNCATE stage")
                execute(
                    "INSERT INTO stage SELECT DISTINCT ON (id) * FROM wanted "
                    f"WHERE n > {first} AND n <= {first + batch} ORDER BY id".encode()
                )
                execute(f"UPDATE bench t SET {assignments} FROM stage s WHERE t.id = s.id".encode())
        seconds = time.monotonic() - began
        written = execute(b"SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), %s)", log).fetchone()
        after = cpu_times(pid)
        assert before
        assert after
        assert written
    user, system = (late - early for late, early in zip(after, before, strict=True))
    return (
        f"{changes / seconds:,.0f} changes/s, {float(written[0]) / 1e6:,.0f} MB of log, "
        f"{user:.1f} s user and {system:.1f} s system of the backend"
    )


if __name__ == "__main__":
    main()
