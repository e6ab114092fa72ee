"""Measures the running replicator as a user would see it: when a committed change can be queried in the copy."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from cdcrep.demo.replicator import Replicator
from cdcrep.demo.shop import Shop
from cdcrep.demo.writers import Sequence
from cdcrep.errors import TransientError

VISIBLE_WITHIN_SECONDS: Final = 30.0
PAUSE_SECONDS: Final = 0.03
LONGEST_BACKLOG_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.005
"""Between two questions whether a change is there: part of a latency's error, and answering takes the process time."""
ORDERS_PER_TRANSACTION: Final = 250
LINES_PER_ORDER: Final = 3


@dataclass
class Latencies:
    """Seconds between the moment at which COMMIT returned and the moment at which a query returned the change."""

    seconds: list[float]

    def percentile(self, percent: float) -> float:
        """Return the latency that `percent` of the commits did not exceed, in milliseconds."""
        return float(np.percentile(self.seconds, percent)) * 1000


def measure_latency(
    shop: Shop, replicator: Replicator, writer: int, seed: int, seconds: float, tell: Callable[[int, float], None]
) -> tuple[Latencies, Sequence]:
    """Commit small transactions one after the other, at least one; ask the running process until each is there."""
    rng = random.Random(f"{seed} latency")  # noqa: S311 - repeatable on purpose
    found: list[float] = []
    with shop.connect() as connection:
        sequence = Sequence(shop, connection, writer)
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < seconds or not found:
            with sequence.transaction():
                pass
            found.append(wait_until_visible(replicator, sequence))
            tell(len(found), elapsed)
            time.sleep(rng.random() * PAUSE_SECONDS)
    return Latencies(found), sequence


def wait_until_visible(replicator: Replicator, sequence: Sequence, pause_seconds: float = LOOK_SECONDS) -> float:
    """Ask the running process until it shows the sequence's last number; return the seconds that took.

    Raises:
        TransientError: not visible in time.
    """
    began = time.perf_counter()
    question = f"SELECT value FROM shop.counters WHERE writer = {sequence.writer}"
    while True:
        rows = replicator.query(question)
        elapsed = time.perf_counter() - began
        if rows and rows[0]["value"] >= sequence.committed:
            return elapsed
        if elapsed > VISIBLE_WITHIN_SECONDS:
            raise TransientError(f"a change was not visible within {VISIBLE_WITHIN_SECONDS:.0f} s")
        time.sleep(pause_seconds)


def write_backlog(shop: Shop, writer: int, transactions: int, tell: Callable[[int, int], None]) -> tuple[int, Sequence]:
    """Commit transactions of 1,000 new rows each, as many as fit into some seconds; return the number of changes."""
    changes = 0
    with shop.connect() as connection:
        sequence = Sequence(shop, connection, writer)
        shop.begin_backlog(connection)
        began = time.monotonic()
        while sequence.committed < transactions and time.monotonic() - began < LONGEST_BACKLOG_SECONDS:
            with sequence.transaction():
                placed = shop.place_orders(connection, ORDERS_PER_TRANSACTION, LINES_PER_ORDER)
            # With the two rows of the sequence.
            changes += placed + 2
            tell(sequence.committed, changes)
    return changes, sequence
