"""Which workloads a run measures, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from bench import mysql_plan
from bench.backfill import measure_backfills
from bench.clusters import Clusters
from bench.consumers.consumer import Consumer
from bench.consumers.raw import RawReceive
from bench.consumers.replicator import Replicator
from bench.consumers.subscription import Subscription
from bench.copiers import copiers
from bench.drain import measure_drains
from bench.latency import measure_latency
from bench.mysql_plan import MYSQL_WORKLOADS
from bench.mysql_servers import MySQLServers
from bench.requirements import BIG
from bench.results import Outcome, Say
from bench.workloads import create_bench, inserts, tpcb, updates

POSTGRES_WORKLOADS: Final = ("W1", "W2", "W3", BIG, "W4", "W5")
WORKLOADS: Final = (*POSTGRES_WORKLOADS, *MYSQL_WORKLOADS)


@dataclass(frozen=True)
class Sizes:
    """How much each workload is."""

    changes: int = 1_000_000
    update_rows: int = 200_000
    big_rows: int = 20_000_000
    transactions: int = 200_000
    latency_seconds: float = 30.0
    backfill_rows: int = 5_000_000
    mysql_changes: int = 500_000

    def divided_by(self, factor: float) -> Sizes:
        """The same in small."""
        return Sizes(
            changes=int(self.changes / factor),
            update_rows=int(self.update_rows / factor),
            big_rows=int(self.big_rows / factor),
            transactions=int(self.transactions / factor),
            latency_seconds=max(self.latency_seconds / factor, 3.0),
            backfill_rows=int(self.backfill_rows / factor),
            mysql_changes=int(self.mysql_changes / factor),
        )


@dataclass(frozen=True)
class Plan:
    """One run."""

    workloads: Sequence[str]
    sizes: Sizes
    rounds: int
    connections: int
    """Of the COPY pipe: as many as cdcrep uses."""

    def measure(self, clusters: Clusters, workload: str, say: Say) -> Outcome:
        """Measure one of `POSTGRES_WORKLOADS`."""
        sizes, rounds, source = self.sizes, self.rounds, clusters.source
        everyone = [RawReceive(clusters), *_replicators(clusters)]
        if workload == "W1":
            return measure_drains(clusters, inserts(source, sizes.changes), everyone, rounds, say)
        if workload == "W2":
            return measure_drains(clusters, updates(source, sizes.changes, sizes.update_rows), everyone, rounds, say)
        if workload == "W3":
            return measure_drains(clusters, tpcb(source, sizes.transactions), everyone, rounds, say)
        if workload == BIG:
            big = updates(source, sizes.changes, sizes.big_rows, BIG)
            return measure_drains(clusters, big, _replicators(clusters), rounds, say, apart=True)
        if workload == "W4":
            return measure_latency(clusters, _replicators(clusters), sizes.latency_seconds, rounds, say)
        ways = copiers(clusters, self.connections)
        create = partial(create_bench, source)
        return measure_backfills(clusters, workload, create, ways, sizes.backfill_rows, rounds, say)

    def measure_mysql(self, servers: MySQLServers, workload: str, say: Say) -> Outcome:
        """Measure one of `MYSQL_WORKLOADS`."""
        sizes = self.sizes
        return mysql_plan.measure(
            servers,
            workload,
            changes=sizes.mysql_changes,
            rows=sizes.update_rows,
            backfill_rows=sizes.backfill_rows,
            rounds=self.rounds,
            say=say,
        )


def _replicators(clusters: Clusters) -> list[Consumer]:
    return [Subscription(clusters), Replicator("PostgreSQL"), Replicator("DuckDB")]
