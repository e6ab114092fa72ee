"""How long a commit takes to become visible in the target, at 200 commits a second: W4."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np
import psycopg
from numpy.typing import NDArray

from bench.clusters import Clusters
from bench.consumers.consumer import Consumer, Mark, Setting, Window
from bench.drain import source_digest, verify
from bench.processes import Usage, UsageSampler
from bench.results import P50, P99, Outcome, Sample, Say, Track, guarded
from bench.tables import BENCH, BENCH_DDL, BENCH_VALUES, MARK_DDL
from bench.waiting import BenchError, wait_for
from bench.workloads import Workload, create_bench

COMMITS_PER_SECOND: Final = 200
FIRST_ROWS: Final = 10_000
WARM_UP_SECONDS: Final = 1.0
LAST_ARRIVAL_SECONDS: Final = 30.0

INSERT: Final = (
    f"INSERT INTO bench SELECT g, {BENCH_VALUES.format(id='g')} FROM generate_series(%s::bigint, %s::bigint) g"
)
NEWEST: Final = "SELECT max(id) FROM public.bench"


class Writer(threading.Thread):
    """Inserts one row a transaction, on a clock, and remembers when each commit was confirmed to it."""

    def __init__(self, clusters: Clusters, database: str, seconds: float) -> None:
        super().__init__(daemon=True)
        self._connection = clusters.source.connect(database)
        newest = self._connection.execute(NEWEST.encode()).fetchone()
        assert newest
        self.first: int = newest[0] + 1
        self._count = int(seconds * COMMITS_PER_SECOND)
        self.committed: list[float] = []
        """By key, beginning with `first`: `time.monotonic` after the commit."""
        self.failure = ""

    @property
    def last(self) -> int:
        """The key that will be written last."""
        return self.first + self._count - 1

    def run(self) -> None:
        try:
            self._write()
        except psycopg.Error as error:
            self.failure = str(error)

    def _write(self) -> None:
        began = time.monotonic()
        with self._connection as connection, connection.cursor() as cursor:
            for number in range(self._count):
                time.sleep(max(0.0, began + number / COMMITS_PER_SECOND - time.monotonic()))
                key = self.first + number
                cursor.execute(INSERT.encode(), (key, key))
                self.committed.append(time.monotonic())


def arrivals(window: Window, writer: Writer, consumer: Consumer) -> list[tuple[float, int]]:
    """Look at the target until the last key is there; returns (time, newest visible key) for each step forward."""
    seen: list[tuple[float, int]] = []
    newest = writer.first - 1
    deadline = time.monotonic() + LAST_ARRIVAL_SECONDS
    while newest < writer.last:
        found = window.number(NEWEST)
        now = time.monotonic()
        if found > newest:
            newest = found
            seen.append((now, newest))
            deadline = now + LAST_ARRIVAL_SECONDS
        elif now > deadline:
            raise BenchError(f"nothing arrived for {LAST_ARRIVAL_SECONDS:.0f} s")
        elif writer.failure:
            raise BenchError(f"the writer failed: {writer.failure}")
        else:
            consumer.check_alive()
        time.sleep(consumer.pause_seconds)
    return seen


def latencies_ms(committed: Sequence[float], first: int, seen: Sequence[tuple[float, int]]) -> NDArray[np.float64]:
    """Per commit, how long after it the first look that showed its key was answered; float64 milliseconds."""
    keys = np.arange(first, first + len(committed))
    times, newest = np.array([time for time, _ in seen]), np.array([key for _, key in seen])
    latencies: NDArray[np.float64] = (times[np.searchsorted(newest, keys)] - np.asarray(committed)) * 1000
    return latencies


def measure_latency(
    clusters: Clusters, consumers: Sequence[Consumer], seconds: float, rounds: int, say: Say
) -> Outcome:
    """Let each consumer in turn follow a steady writer; verify its target afterwards."""
    workload = Workload(
        name="W4",
        title=f"commit to visible at {COMMITS_PER_SECOND} commits/s for {seconds:.0f} s",
        changes=int(seconds * COMMITS_PER_SECOND),
        include=["public.bench", "public.mark"],
        contents=[BENCH],
        set_up=lambda database: create_bench(clusters.source, database, FIRST_ROWS),
        write=lambda _: None,
        schema=[BENCH_DDL, MARK_DDL],
    )
    setting = Setting(clusters, workload, "w4")
    tracks = {consumer: Track(consumer.name) for consumer in consumers}
    clusters.source.create_database(setting.database)
    try:
        workload.set_up(setting.database)
        for consumer, track in tracks.items():
            # One at a time, and gone before the next: a stopped consumer's backlog would be in its next period.
            guarded(track, "W4", say, partial(_follow, clusters, setting, consumer, track, seconds, rounds, say))
    finally:
        clusters.source.drop_database(setting.database)
    return Outcome(workload.name, workload.title, list(tracks.values()))


def _follow(
    clusters: Clusters, setting: Setting, consumer: Consumer, track: Track, seconds: float, rounds: int, say: Say
) -> None:
    try:
        consumer.set_up(setting)
        for number in range(1, rounds + 1):
            values, usage = _period(clusters, setting, consumer, seconds)
            track.samples.append(Sample(number, values, usage))
            verify(setting, consumer, source_digest(setting))
            say(f"W4 round {number}: {track.name}: p50 {values[P50]:.1f} ms, p99 {values[P99]:.1f} ms")
    finally:
        consumer.tear_down()


def _period(
    clusters: Clusters, setting: Setting, consumer: Consumer, seconds: float
) -> tuple[Mapping[str, float], Usage]:
    clusters.checkpoint()
    sampler = UsageSampler(clusters.processes)
    sampler.start()
    try:
        pid = consumer.start(Mark(0, ""))
        if pid:
            sampler.watch(pid)
        wait_for(consumer.streaming, f"{consumer.name} is streaming")
        window = consumer.window()
        assert window
        writer = Writer(clusters, setting.database, seconds + WARM_UP_SECONDS)
        sampler.mark()
        writer.start()
        try:
            seen = arrivals(window, writer, consumer)
        finally:
            writer.join()
            window.close()
    finally:
        usage = sampler.finish()
        consumer.stop()
    warm_up = int(WARM_UP_SECONDS * COMMITS_PER_SECOND)
    measured = latencies_ms(writer.committed, writer.first, seen)[warm_up:]
    return {P50: float(np.percentile(measured, 50)), P99: float(np.percentile(measured, 99))}, usage
