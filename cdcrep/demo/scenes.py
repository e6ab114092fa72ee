"""The scenes of the demonstration: what is done to the replicator while the shop goes on selling."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cdcrep.demo.display import Display, Step
from cdcrep.demo.judge import Verdict, compare
from cdcrep.demo.measure import Latencies, measure_latency, wait_until_visible, write_backlog
from cdcrep.demo.replicator import Replicator
from cdcrep.demo.shop import HISTORY, TABLES, Shop
from cdcrep.demo.writers import Writer
from cdcrep.supervise import State

KILLS_IN_COPY: Final = 0.3  # part of all kills
KILLS_ANYWHERE: Final = 0.2  # part of the others that may strike before there is anything to follow
LONGEST_COPY_SECONDS: Final = 1.0
LONGEST_STREAM_SECONDS: Final = 1.5
WORDS: Final[dict[str, str]] = {State.SNAPSHOTTING: "copying", State.DEDUPLICATING: "streaming"}
"""What kills are called by the state that they struck, where that is not the state's own name."""
BACKLOG_WRITER: Final = 101
LATENCY_WRITER: Final = 102


@dataclass
class Figures:
    """What was measured on the way."""

    kills: Counter[str] = field(default_factory=Counter)
    """What the replicator was doing -> kills that struck it there."""
    copied_rows: int = 0
    """Rows that the last, undisturbed attempt at the first copy still had to carry."""
    copy_seconds: float = 0.0
    backlog_changes: int = 0
    backlog_seconds: float = 0.0
    latencies: Latencies | None = None
    writers_rate: float = 0.0
    """Transactions a second that the writers committed while latencies were measured."""


class Scenes:
    """A shop, its writers and a replicator. The methods are played in their order."""

    def __init__(self, display: Display, shop: Shop, replicator: Replicator, seed: int) -> None:
        self.figures = Figures()
        self._display, self._shop, self._replicator, self._seed = display, shop, replicator, seed
        self._random = random.Random(f"{seed} kills")  # noqa: S311 - repeatable on purpose
        self._committed = {HISTORY: shop.history}

    def copy(self, kills: int) -> int:
        """Let the first copy complete in spite of some kills; return how many kills are left."""
        planned = round(kills * KILLS_IN_COPY)
        with self._display.step("first copy", total=planned or None) as step:
            for number in range(1, planned + 1):
                self._replicator.start()
                self._replicator.wait_for("copying", State.STREAMING)
                self._replicator.pause(self._random.uniform(0.02, LONGEST_COPY_SECONDS))
                self._kill(step, number, planned)
            self._replicator.start()
            self._replicator.wait_for(State.STREAMING)
            copied = self._replicator.find("copied") or {}
            self.figures.copied_rows, self.figures.copy_seconds = copied.get("rows", 0), copied.get("seconds", 0.0)
            step.outcome = f"complete{killed(planned)}"
        return kills - planned

    def follow(self, kills: int, writers: list[Writer]) -> None:
        """Let the replicator follow the writers while it is killed."""
        with self._display.step("following the writers", total=kills or None) as step:
            for number in range(1, kills + 1):
                if number > 1:
                    self._replicator.start()
                if self._random.random() < KILLS_ANYWHERE:
                    self._replicator.pause(self._random.uniform(0.0, LONGEST_STREAM_SECONDS))
                else:
                    self._replicator.wait_for(State.STREAMING)
                    self._replicator.pause(self._random.uniform(0.02, LONGEST_STREAM_SECONDS))
                self._kill(step, number, kills)
            step.outcome = f"{total(writers):,} transactions{killed(kills)}"

    def catch_up(self, transactions: int) -> None:
        """Write much while no replicator runs, then measure how fast it gets through."""
        figures = self.figures
        with self._display.step("catching up", total=transactions) as step:
            self._replicator.stop()
            figures.backlog_changes, sequence = write_backlog(
                self._shop,
                BACKLOG_WRITER,
                transactions,
                lambda done, changes: step.tell(f"{changes:,} changes written while no replicator runs", done=done),
            )
            step.tell(f"{figures.backlog_changes:,} changes are waiting")
            self._replicator.start()
            self._replicator.wait_for(State.STREAMING)
            figures.backlog_seconds = wait_until_visible(self._replicator, sequence, pause_seconds=0.01)
            self._committed[sequence.writer] = sequence.committed
            step.outcome = f"{figures.backlog_changes:,} changes in {figures.backlog_seconds:.1f} s"

    def watch(self, seconds: float, writers: list[Writer]) -> None:
        """Measure how long after its commit a change can be queried, while the writers go on."""
        began, committed = time.monotonic(), total(writers)
        with self._display.step("commit to visible", total=seconds) as step:
            latencies, sequence = measure_latency(
                self._shop,
                self._replicator,
                LATENCY_WRITER,
                self._seed,
                seconds,
                lambda count, elapsed: step.tell(f"{count} commits awaited", done=elapsed),
            )
            self._committed[sequence.writer] = sequence.committed
            self.figures.latencies = latencies
            self.figures.writers_rate = (total(writers) - committed) / (time.monotonic() - began)
            step.outcome = f"p50 {latencies.percentile(50):.0f} ms, p99 {latencies.percentile(99):.0f} ms"

    def finish(self, writers: list[Writer]) -> None:
        """After the writers have stopped: let the copy become current."""
        with self._display.step("becoming current") as step:
            self._committed.update((writer.number, writer.committed) for writer in writers)
            self._replicator.stop()
            self._replicator.finish()
            step.outcome = f"{sum(self._committed.values()) - self._shop.history:,} transactions were committed"

    def compare(self, copy: Path) -> Verdict:
        """Compare every row of every table, and the writers' sequences."""
        with (
            self._display.step("comparing every row", total=len(TABLES)) as step,
            self._shop.connect() as source,
        ):
            compared = iter(range(1, len(TABLES) + 1))
            verdict = compare(
                self._shop,
                source,
                copy,
                TABLES,
                self._committed,
                lambda table, rows: step.tell(f"shop.{table}: {rows:,} rows", done=next(compared)),
            )
            step.outcome = "everything is equal" if not verdict.complaints else "NOT EQUAL"
        return verdict

    def _kill(self, step: Step, number: int, planned: int) -> None:
        state = self._replicator.state()
        self._replicator.kill()
        state = WORDS.get(state, state)
        self.figures.kills[state] += 1
        step.tell(f"kill {number} of {planned}, while {state}", done=number, worth_a_line=True)


def total(writers: list[Writer]) -> int:
    """Return how many transactions the writers have committed so far."""
    return sum(writer.committed for writer in writers)


def killed(count: int) -> str:
    """Say how often, as the end of a sentence."""
    how_often = {1: "once", 2: "twice"}.get(count, f"{count} times")
    return f", killed {how_often}" if count else ""
