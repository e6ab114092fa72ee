"""How fast a table is copied once, against the quickest other ways: W5."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from bench.copiers import Copier
from bench.processes import UsageSampler
from bench.results import RATE, Outcome, Sample, Say, Track, guarded
from bench.servers import Servers
from bench.tables import Digest, difference
from bench.waiting import BenchError


def measure_backfills(
    servers: Servers,
    name: str,
    create: Callable[[str, int], None],
    copiers: Sequence[Copier],
    rows: int,
    rounds: int,
    say: Say,
) -> Outcome:
    """Let each way copy the same table in turn, round by round; verify and delete each copy.

    `create` makes the table in a database, with a number of rows; `name` is the workload's.
    """
    database = name.lower().replace("-", "_")
    tracks = {copier: Track(copier.name) for copier in copiers}
    servers.source.create_database(database)
    try:
        say(f"{name}: writing {rows:,} rows")
        create(database, rows)
        expected = {
            contents: servers.source.digest(database, [contents])
            for contents in {copier.contents for copier in copiers}
        }
        for number in range(1, rounds + 1):
            where = f"{name} round {number}"
            for copier, track in tracks.items():
                if track.error:
                    continue
                if guarded(
                    track,
                    where,
                    say,
                    partial(_copy, servers, database, copier, rows, number, expected[copier.contents], track),
                ):
                    say(f"{where}: {track.name}: {track.samples[-1].values[RATE]:,.0f} rows/s")
    finally:
        servers.source.drop_database(database)
    return Outcome(name, f"copy of {rows:,} rows, from start to exit", list(tracks.values()))


def _copy(
    servers: Servers, database: str, copier: Copier, rows: int, number: int, expected: Digest, track: Track
) -> None:
    copier.set_up(servers, database)
    try:
        servers.checkpoint()
        sampler = UsageSampler(servers.processes)
        sampler.mark()
        sampler.start()
        began = time.monotonic()
        try:
            copier.copy(sampler)
            ended = time.monotonic()
        finally:
            usage = sampler.finish()
        track.samples.append(Sample(number, {RATE: rows / (ended - began)}, usage))
        if differs := difference(expected, copier.files.digest([copier.contents])):
            raise BenchError(f"the copy differs from the source: {differs}")
    finally:
        copier.files.remove()
