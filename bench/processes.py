"""CPU seconds and peak memory of the processes at work, read from /proc."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
INTERVAL_SECONDS: Final = 0.1


@dataclass
class Usage:
    """What one measurement cost."""

    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """By role: `source` (what is read from), `consumer`, `target` (what is written to)."""
    peak_rss_mib: float | None = None
    """Of the consumer's own process, shared libraries included; None where the consumer is a part of a server."""


def cpu_times(pid: int) -> tuple[float, float] | None:
    """User and system time of a process so far, in seconds; None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[11]) / TICKS_PER_SECOND, int(fields[12]) / TICKS_PER_SECOND


def peak_rss_mib(pid: int) -> float | None:
    """Highest resident memory of a process so far; None when it is gone."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None


def children(pid: int) -> list[int]:
    """Process ids of a process's children; empty when it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def title(pid: int) -> str:
    """Command line of a process, as it may have changed it; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


class UsageSampler(threading.Thread):
    """Watches processes from `start` to `finish`, those that end in between included.

    `of_servers` finds the servers' processes that work for consumers, each with its role. A process that ends is
    counted up to its last sample: at most `INTERVAL_SECONDS` are missed.
    """

    def __init__(self, of_servers: Callable[[], Iterable[tuple[int, str]]]) -> None:
        super().__init__(daemon=True)
        self._of_servers = of_servers
        self._consumers: set[int] = set()
        self._first: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._roles: dict[int, str] = {}
        self._peak: dict[int, float] = {}
        self._stopped = threading.Event()
        self._sampling = threading.Lock()

    def watch(self, pid: int) -> None:
        """Add a process of the consumer's."""
        self._consumers.add(pid)

    def mark(self) -> None:
        """Count CPU time from now on; processes that start later count from their beginning."""
        self._sample()
        with self._sampling:
            self._first = dict(self._last)

    def run(self) -> None:
        while not self._stopped.wait(INTERVAL_SECONDS):
            self._sample()

    def finish(self) -> Usage:
        """Stop watching and add up."""
        self._sample()
        self._stopped.set()
        self.join()
        usage = Usage()
        for pid, last in self._last.items():
            usage.cpu_seconds.setdefault(self._roles[pid], 0.0)
            usage.cpu_seconds[self._roles[pid]] += last - self._first.get(pid, 0.0)
        if self._peak:
            usage.peak_rss_mib = sum(self._peak.values())
        return usage

    def _sample(self) -> None:
        with self._sampling:
            for pid, role in self._processes():
                used = cpu_times(pid)
                if used is None:
                    continue
                self._roles[pid] = role
                self._last[pid] = sum(used)
            for pid in tuple(self._consumers):
                if peak := peak_rss_mib(pid):
                    self._peak[pid] = peak

    def _processes(self) -> Iterator[tuple[int, str]]:
        for pid in tuple(self._consumers):
            yield pid, "consumer"
        yield from self._of_servers()
