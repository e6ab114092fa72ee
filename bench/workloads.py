"""What is written at the source while no consumer runs: W1, W2 (small and big table) and W3."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.clusters import Cluster
from bench.tables import BENCH, BENCH_DDL, BENCH_VALUES, MARK_DDL, PGBENCH, Contents
from bench.waiting import BenchError

SCHEMA: Final = "public"
PGBENCH_SCALE: Final = 20
INSERTS_PER_TRANSACTION: Final = 1_000
UPDATES_PER_TRANSACTION: Final = 10


@dataclass(frozen=True)
class Workload:
    """Tables, and a number of row changes to them that can be written again and again."""

    name: str
    title: str
    changes: int
    """Row changes of one writing."""
    include: Sequence[str]
    """The tables as a user names them in the configuration."""
    contents: Sequence[Contents]
    set_up: Callable[[str], None]
    """Create and fill the tables in this database."""
    write: Callable[[str], None]
    """Write the changes to this database."""
    schema: Sequence[str] = ()
    """Statements that create the tables, empty, in PostgreSQL as a target."""
    mark_table: str = "public.mark"

    @property
    def database(self) -> str:
        """The name of the source's database."""
        return self.name.lower().replace("-", "_")


def inserts(source: Cluster, changes: int) -> Workload:
    """W1: inserts, 1,000 a transaction."""
    transactions = changes // INSERTS_PER_TRANSACTION
    values = BENCH_VALUES.format(id="g")
    loop = f"""
        DO $$
        DECLARE first bigint := (SELECT coalesce(max(id), 0) + 1 FROM bench);
        BEGIN
            FOR t IN 0 .. {transactions - 1} LOOP
                INSERT INTO bench SELECT g, {values} FROM generate_series(
                    first + t * {INSERTS_PER_TRANSACTION}, first + (t + 1) * {INSERTS_PER_TRANSACTION} - 1) g;
                COMMIT;
            END LOOP;
        END $$
    """
    return Workload(
        name="W1",
        title=f"{changes:,} inserts, {INSERTS_PER_TRANSACTION:,} a transaction",
        changes=transactions * INSERTS_PER_TRANSACTION,
        include=["public.bench", "public.mark"],
        contents=[BENCH],
        set_up=lambda database: create_bench(source, database, 0),
        write=lambda database: _write(source, database, loop),
        schema=[BENCH_DDL, MARK_DDL],
    )


def updates(source: Cluster, changes: int, rows: int, name: str = "W2") -> Workload:
    """W2: single-row updates (a to e and h change) of random rows, 10 a transaction."""
    transactions = changes // UPDATES_PER_TRANSACTION
    loop = f"""
        DO $$
        DECLARE key bigint;
        BEGIN
            FOR t IN 1 .. {transactions} LOOP
                FOR n IN 1 .. {UPDATES_PER_TRANSACTION} LOOP
                    key := 1 + floor(random() * {rows});
                    UPDATE bench SET a = t, b = (random() * 1e15)::bigint, c = (random() * 1e9)::numeric(12,2),
                        d = md5(random()::text) || key, e = clock_timestamp(), h = floor(random() * 1e9) / 1024
                    WHERE id = key;
                END LOOP;
                COMMIT;
            END LOOP;
        END $$
    """
    return Workload(
        name=name,
        title=f"{changes:,} updates of {rows:,} rows, random keys, {UPDATES_PER_TRANSACTION} a transaction",
        changes=transactions * UPDATES_PER_TRANSACTION,
        include=["public.bench", "public.mark"],
        contents=[BENCH],
        set_up=lambda database: create_bench(source, database, rows),
        write=lambda database: _write(source, database, loop),
        schema=[BENCH_DDL, MARK_DDL],
    )


def tpcb(source: Cluster, transactions: int) -> Workload:
    """W3: pgbench's TPC-B, scale 20: three updates and an insert a transaction."""
    names = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"]
    clients = 4
    share = transactions // clients

    def set_up(database: str) -> None:
        _pgbench(source, database, "-i", "-I", "dtGvp", "-s", str(PGBENCH_SCALE), "-q")
        # It has no key. cdcrep asks for an identity; inserts, all it gets, are logged the same either way.
        source.execute(database, MARK_DDL, "ALTER TABLE pgbench_history REPLICA IDENTITY FULL", "VACUUM ANALYZE")

    return Workload(
        name="W3",
        title=f"pgbench TPC-B, scale {PGBENCH_SCALE}, {transactions:,} transactions of four changes",
        changes=share * clients * 4,
        include=[*(f"{SCHEMA}.{name}" for name in names), "public.mark"],
        contents=PGBENCH,
        set_up=set_up,
        write=lambda database: _pgbench(
            source, database, "-n", "-c", str(clients), "-j", "2", "-t", str(share), quick_commits=True
        ),
        schema=[
            "CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84))",
            "CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88))",
            "CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84))",
            "CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22))",
            MARK_DDL,
        ],
    )


def create_bench(source: Cluster, database: str, rows: int) -> None:
    """Create the tables `bench`, with the keys 1 to `rows`, and `mark`."""
    values = BENCH_VALUES.format(id="g")
    source.execute(
        database,
        BENCH_DDL,
        MARK_DDL,
        "SET synchronous_commit = off",
        f"INSERT INTO bench SELECT g, {values} FROM generate_series(1, {rows}) g",
        "VACUUM ANALYZE",
    )


def _write(source: Cluster, database: str, statement: str) -> None:
    # The log that the consumers read is the same; only the writing is quicker.
    source.execute(database, "SET synchronous_commit = off", statement)


def _pgbench(source: Cluster, database: str, *arguments: str, quick_commits: bool = False) -> None:
    environment = dict(source.server.environment)
    if quick_commits:
        environment["PGOPTIONS"] = "-c synchronous_commit=off"
    done = subprocess.run(
        [source.server.binaries / "pgbench", *arguments, source.dsn(database)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"pgbench failed: {done.stderr.strip().splitlines()[-1:]}")
