"""Which workloads a run measures, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.backfill import measure_backfills
from bench.clusters import Clusters
from bench.consumers.consumer import Consumer
from bench.consumers.raw import RawReceive
from bench.consumers.replicator import Replicator
from bench.consumers.subscription import Subscription
from bench.copiers import copiers
from bench.drain import measure_drains
from bench.latency import measure_latency
from bench.requirements import BIG
from bench.results import Outcome, Say
from bench.workloads import inserts, tpcb, updates

WORKLOADS: Final = ("W1", "W2", "W3", BIG, "W4", "W5")


@dataclass(frozen=True)
class Sizes:
    """How much each workload is."""

    changes: int = 1_000_000
    update_rows: int = 200_000
    big_rows: int = 20_000_000
    transactions: int = 200_000
    latency_seconds: float = 30.0
    backfill_rows: int = 5_000_000

    def divided_by(self, factor: float) -> Sizes:
        """The same in small."""
        return Sizes(
            changes=int(self.changes / factor),
            update_rows=int(self.update_rows / factor),
            big_rows=int(self.big_rows / factor),
            transactions=int(self.transactions / factor),
            latency_seconds=max(self.latency_seconds / factor, 3.0),
            backfill_rows=int(self.backfill_rows / factor),
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
        """Measure one workload."""
        sizes, rounds = self.sizes, self.rounds
        if workload == "W1":
            return measure_drains(clusters, inserts(sizes.changes), _everyone(), rounds, say)
        if workload == "W2":
            return measure_drains(clusters, updates(sizes.changes, sizes.update_rows), _everyone(), rounds, say)
        if workload == "W3":
            return measure_drains(clusters, tpcb(sizes.transactions), _everyone(), rounds, say)
        if workload == BIG:
            return measure_drains(clusters, updates(sizes.changes, sizes.big_rows, BIG), _replicators(), rounds, say)
        if workload == "W4":
            return measure_latency(clusters, _replicators(), sizes.latency_seconds, rounds, say)
        return measure_backfills(clusters, copiers(self.connections), sizes.backfill_rows, rounds, say)


def _replicators() -> list[Consumer]:
    return [Subscription(), Replicator("PostgreSQL"), Replicator("DuckDB")]


def _everyone() -> list[Consumer]:
    return [RawReceive(), *_replicators()]
