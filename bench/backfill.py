"""How fast a table is copied once, against the quickest other ways: W5."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from bench.clusters import Clusters
from bench.copiers import Copier
from bench.processes import UsageSampler
from bench.results import RATE, Outcome, Sample, Say, Track, guarded
from bench.tables import Digest, difference, postgres_digest
from bench.waiting import BenchError
from bench.workloads import create_bench

DATABASE: Final = "w5"


def measure_backfills(clusters: Clusters, copiers: Sequence[Copier], rows: int, rounds: int, say: Say) -> Outcome:
    """Let each way copy the same table in turn, round by round; verify and delete each copy."""
    tracks = {copier: Track(copier.name) for copier in copiers}
    clusters.source.create_database(DATABASE)
    try:
        say(f"W5: writing {rows:,} rows")
        create_bench(clusters.source, DATABASE, rows)
        with clusters.source.connect(DATABASE) as connection:
            expected = {
                contents: postgres_digest(connection, [contents])
                for contents in {copier.contents for copier in copiers}
            }
        for number in range(1, rounds + 1):
            where = f"W5 round {number}"
            for copier, track in tracks.items():
                if track.error:
                    continue
                if guarded(
                    track, where, say, partial(_copy, clusters, copier, rows, number, expected[copier.contents], track)
                ):
                    say(f"{where}: {track.name}: {track.samples[-1].values[RATE]:,.0f} rows/s")
    finally:
        clusters.source.drop_database(DATABASE)
    return Outcome("W5", f"copy of {rows:,} rows, from start to exit", list(tracks.values()))


def _copy(clusters: Clusters, copier: Copier, rows: int, number: int, expected: Digest, track: Track) -> None:
    copier.set_up(clusters, DATABASE)
    try:
        clusters.checkpoint()
        sampler = UsageSampler(clusters)
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
