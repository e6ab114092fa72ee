"""Backlogs and how fast consumers drain them, round by round: W1, W2, W3."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Final

from bench.consumers.consumer import Consumer, Mark, Setting
from bench.processes import UsageSampler
from bench.results import RATE, Outcome, Sample, Say, Track, guarded
from bench.servers import Servers
from bench.tables import Digest, difference
from bench.waiting import BenchError, wait_for
from bench.workloads import Workload

SLOWEST_RATE: Final = 2_000
"""Changes per second below which a consumer is given up."""


def measure_drains(
    servers: Servers,
    workload: Workload,
    consumers: Sequence[Consumer],
    rounds: int,
    say: Say,
    *,
    apart: bool = False,
) -> Outcome:
    """Set the consumers up, then for each round write one backlog and let them drain it in turn.

    Every consumer has its own place in the source's log: all receive the same. Nothing else runs meanwhile. A consumer
    that fails, or whose target differs from the source afterwards, is left out of the following rounds. With `apart`
    each consumer gets backlogs of its own and its target is gone before the next: for targets of which the system's
    file cache holds one beside the source, but not all.
    """
    setting = Setting(servers, workload, workload.database)
    tracks = {consumer: Track(consumer.name) for consumer in consumers}
    servers.source.create_database(setting.database)
    try:
        say(f"{workload.name}: creating the tables")
        workload.set_up(setting.database)
        for group in [[consumer] for consumer in tracks] if apart else [list(tracks)]:
            _rounds(setting, {consumer: tracks[consumer] for consumer in group}, rounds, say)
    finally:
        servers.source.drop_database(setting.database)
    return Outcome(workload.name, workload.title, list(tracks.values()))


def _rounds(setting: Setting, tracks: dict[Consumer, Track], rounds: int, say: Say) -> None:
    name = setting.workload.name
    try:
        for consumer, track in tracks.items():
            say(f"{name}: {consumer.name}: first copy")
            guarded(track, name, say, partial(consumer.set_up, setting))
        for number in range(1, rounds + 1):
            if alive := {consumer: track for consumer, track in tracks.items() if not track.error}:
                _round(setting, alive, number, say)
    finally:
        for consumer in tracks:
            consumer.tear_down()


def _round(setting: Setting, tracks: dict[Consumer, Track], number: int, say: Say) -> None:
    source, workload = setting.servers.source, setting.workload
    where = f"{workload.name} round {number}"
    say(f"{where}: writing {workload.changes:,} changes")
    for consumer in tracks:
        consumer.backlog_begins()
    workload.write(setting.database)
    mark = Mark(number, f"mark-{uuid.uuid4().hex}", workload.mark_table)
    source.execute(setting.database, f"INSERT INTO mark VALUES ({mark.number}, '{mark.token}')")
    source.settle(setting.database)
    expected = source_digest(setting)
    # Each round begins with another consumer: whatever favours the first or the last evens out.
    order = list(tracks)
    turn = (number - 1) % max(len(order), 1)
    for consumer in order[turn:] + order[:turn]:
        track = tracks[consumer]
        if guarded(track, where, say, partial(_drain, setting, consumer, mark, expected, track)):
            say(f"{where}: {track.name}: {track.samples[-1].values[RATE]:,.0f} rows/s")


def _drain(setting: Setting, consumer: Consumer, mark: Mark, expected: Digest, track: Track) -> None:
    setting.servers.checkpoint()
    sampler = UsageSampler(setting.servers.processes)
    sampler.start()
    try:
        pid = consumer.start(mark)
        if pid:
            sampler.watch(pid)
        wait_for(consumer.streaming, f"{consumer.name} is streaming", pause_seconds=0.001)
        began = time.monotonic()
        sampler.mark()
        ended = consumer.wait(mark, seconds=60 + setting.workload.changes / SLOWEST_RATE)
    finally:
        usage = sampler.finish()
        consumer.stop()
    track.samples.append(Sample(mark.number, {RATE: setting.workload.changes / (ended - began)}, usage))
    verify(setting, consumer, expected)


def source_digest(setting: Setting) -> Digest:
    """Digest the source's tables, which nobody writes."""
    return setting.servers.source.digest(setting.database, setting.workload.contents)


def verify(setting: Setting, consumer: Consumer, expected: Digest) -> None:
    """Raise BenchError unless the stopped consumer's target equals the source."""
    found = consumer.digest(setting.workload.contents)
    if found is not None and (differs := difference(expected, found)):
        raise BenchError(f"the target differs from the source: {differs}")
