"""What cdcrep is required to reach, and whether it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bench.results import P50, P99, RATE, Outcome, Track

RAW: Final = "raw receive"
NATIVE: Final = "native subscription"
TO_POSTGRES: Final = "cdcrep to PostgreSQL"
TO_DUCKDB: Final = "cdcrep to DuckDB"
PIPE: Final = "psql COPY pipe"
SCANNER: Final = "DuckDB postgres scanner"
CONNECTORX: Final = "ConnectorX"
RAW_DUMP: Final = "raw dump"
MYSQL_REPLICATION: Final = "mysql-replication"
REPLICA: Final = "native replica"
DECODE: Final = "cdcrep decode only"
SSCURSOR: Final = "pymysql SSCursor loop"

BIG: Final = "W2-big"
RSS_MIB: Final = "peak RSS"

Against = Literal["at least", "at most", "more than"]


@dataclass(frozen=True)
class Requirement:
    """A bound on a ratio to another track's rate, or on a figure itself."""

    workload: str
    consumer: str
    against: Against
    bound: float
    other: str = ""
    """The track whose rate the ratio is to; empty: `metric` itself is bounded."""
    metric: str = RATE
    other_workload: str = ""
    """Where the other track is; empty: in the same workload."""

    def measured(self, outcomes: Mapping[str, Outcome]) -> float | None:
        """The figure to hold against the bound; None where it was not measured."""
        track = _find(outcomes, self.workload, self.consumer)
        if track is None:
            return None
        if self.other:
            other = _find(outcomes, self.other_workload or self.workload, self.other)
            return track.ratio(other) if other else None
        return track.peak_rss_mib() if self.metric == RSS_MIB else track.median(self.metric)

    def is_met_by(self, figure: float) -> bool:
        """Does the figure keep to the bound?"""
        if self.against == "at most":
            return figure <= self.bound
        return figure >= self.bound if self.against == "at least" else figure > self.bound

    @property
    def text(self) -> str:
        """The requirement in words."""
        if self.other:
            place = f" in {self.other_workload}" if self.other_workload else ""
            other = "itself" if self.other == self.consumer else self.other
            return f"{self.against} {self.bound:g} x {other}{place}"
        unit = "MiB" if self.metric == RSS_MIB else "ms"
        return f"{self.metric.removesuffix('_ms')} {self.against} {self.bound:g} {unit}"


def _find(outcomes: Mapping[str, Outcome], workload: str, name: str) -> Track | None:
    outcome = outcomes.get(workload)
    return outcome.track(name) if outcome else None


def _memory() -> list[Requirement]:
    return [
        Requirement(workload, consumer, "at most", bound, metric=RSS_MIB)
        for workload in ("W1", "W2", "W3", BIG, "W4", "W5")
        # DuckDB's own buffers count in the second.
        for consumer, bound in ((TO_POSTGRES, 300), (TO_DUCKDB, 400))
    ]


def _of_mysql(kind: str) -> list[Requirement]:
    inserts, updates, backfill = f"W1m-{kind}", f"W2m-{kind}", f"W5m-{kind}"
    return [
        Requirement(inserts, DECODE, "at least", 10, MYSQL_REPLICATION),
        Requirement(updates, DECODE, "at least", 20, MYSQL_REPLICATION),
        Requirement(inserts, TO_DUCKDB, "at least", 0.6, REPLICA),
        Requirement(updates, TO_DUCKDB, "at least", 2.0, REPLICA),
        Requirement(backfill, TO_DUCKDB, "at least", 3, SSCURSOR),
        *(
            Requirement(workload, consumer, "at most", 300, metric=RSS_MIB)
            for workload in (inserts, updates)
            for consumer in (DECODE, TO_DUCKDB, TO_POSTGRES)
        ),
        Requirement(backfill, TO_DUCKDB, "at most", 300, metric=RSS_MIB),
    ]


REQUIREMENTS: Final[Sequence[Requirement]] = (
    Requirement("W1", TO_POSTGRES, "at least", 0.8, NATIVE),
    Requirement("W1", TO_DUCKDB, "at least", 0.5, RAW),
    Requirement("W2", TO_POSTGRES, "at least", 1.3, NATIVE),
    Requirement("W2", TO_DUCKDB, "at least", 0.4, RAW),
    Requirement("W3", TO_POSTGRES, "at least", 1.5, NATIVE),
    Requirement("W3", TO_DUCKDB, "at least", 0.4, RAW),
    Requirement(BIG, TO_POSTGRES, "at least", 0.4, TO_POSTGRES, other_workload="W2"),
    Requirement(BIG, TO_DUCKDB, "at least", 0.4, TO_DUCKDB, other_workload="W2"),
    Requirement("W4", TO_POSTGRES, "at most", 5, metric=P50),
    Requirement("W4", TO_POSTGRES, "at most", 30, metric=P99),
    Requirement("W4", TO_DUCKDB, "at most", 20, metric=P50),
    Requirement("W4", TO_DUCKDB, "at most", 100, metric=P99),
    Requirement("W5", TO_POSTGRES, "at least", 0.9, PIPE),
    Requirement("W5", TO_DUCKDB, "at least", 0.8, SCANNER),
    Requirement("W5", TO_DUCKDB, "more than", 1, CONNECTORX),
    *_memory(),
    *_of_mysql("mariadb"),
    *_of_mysql("mysql"),
)
