"""What was measured: per workload one track for each consumer, per track one sample a round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.processes import Usage

RATE: Final = "rows_per_second"
P50: Final = "p50_ms"
P99: Final = "p99_ms"


@dataclass(frozen=True)
class Sample:
    """One consumer, one round."""

    round: int
    values: Mapping[str, float]
    """By metric: `RATE`, or `P50` and `P99`."""
    usage: Usage


@dataclass
class Track:
    """Everything that one consumer did in one workload."""

    name: str
    samples: list[Sample] = field(default_factory=list)
    error: str = ""
    """Why its figures do not count; empty where they do."""

    @property
    def counts(self) -> bool:
        """Are there figures, and may they be shown?"""
        return bool(self.samples) and not self.error

    def median(self, metric: str) -> float | None:
        """The median over the rounds; None where the metric was not measured."""
        values = [sample.values[metric] for sample in self.samples if metric in sample.values]
        return statistics.median(values) if values and self.counts else None

    def extremes(self, metric: str) -> tuple[float, float] | None:
        """The lowest and the highest round."""
        values = [sample.values[metric] for sample in self.samples if metric in sample.values]
        return (min(values), max(values)) if values and self.counts else None

    def cpu_seconds(self, role: str) -> float | None:
        """The median CPU time of a role; None where it had no process."""
        values = [sample.usage.cpu_seconds[role] for sample in self.samples if role in sample.usage.cpu_seconds]
        return statistics.median(values) if values and self.counts else None

    def peak_rss_mib(self) -> float | None:
        """The highest peak of all rounds."""
        values = [sample.usage.peak_rss_mib for sample in self.samples if sample.usage.peak_rss_mib is not None]
        return max(values) if values and self.counts else None

    def ratio(self, other: Track) -> float | None:
        """The median, over the rounds that both have, of this rate to the other's in the same round."""
        theirs = {sample.round: sample.values[RATE] for sample in other.samples if RATE in sample.values}
        ratios = [
            sample.values[RATE] / theirs[sample.round]
            for sample in self.samples
            if sample.round in theirs and RATE in sample.values
        ]
        return statistics.median(ratios) if ratios and self.counts and other.counts else None


@dataclass
class Outcome:
    """One workload's tracks."""

    workload: str
    title: str
    tracks: Sequence[Track]

    def track(self, name: str) -> Track | None:
        """The track of this name."""
        return next((track for track in self.tracks if track.name == name), None)


Say = Callable[[str], None]
"""Tells the person at the terminal how far the run is."""


def guarded(track: Track, what: str, say: Say, step: Callable[[], None]) -> bool:
    """Run one step of one consumer; its failure takes its figures' place and leaves the others' alone."""
    try:
        step()
    except Exception as error:
        track.error = " ".join(str(error).split()) or type(error).__name__
        say(f"{what}: {track.name}: ERROR: {track.error}")
        return False
    return True
