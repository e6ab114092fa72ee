"""Measures what the way of reading costs the sending server: `python -m bench.read_pattern [--rows N] [--rounds N]`.

The same backlog of inserts is read and dropped: at once whenever there is something, whenever the kernel counts 64 KiB
(`SO_RCVLOWAT`), and with rests between two reads. Prints the seconds that passed and the walsender's CPU.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.clusters import Clusters
from bench.consumers.receiver import STATUS_UPDATE, receive, start
from bench.processes import cpu_times
from bench.workloads import inserts

SLOT: Final = "bench_reading"
DATABASE: Final = "reading"
TOKEN: Final = "the end of the backlog"
LOW_WATER_BYTES: Final = 64 << 10
RESTS_MS: Final = (2, 5, 10, 15, 20, 30, 50)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    patterns = {"at once": (1, 0.0), "64 KiB": (LOW_WATER_BYTES, 0.0)}
    patterns |= {f"{rest} ms rest": (1, rest / 1000) for rest in RESTS_MS}
    with Clusters(15, Path(tempfile.gettempdir())) as clusters:
        cluster, workload = clusters.source, inserts(clusters.source, arguments.rows)
        cluster.create_database(DATABASE)
        workload.set_up(DATABASE)
        cluster.execute(
            DATABASE,
            f"CREATE PUBLICATION {SLOT} FOR TABLE {', '.join(workload.include)}",
            f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')",
        )
        workload.write(DATABASE)
        cluster.execute(DATABASE, f"INSERT INTO mark VALUES (1, '{TOKEN}')")
        clusters.checkpoint()
        for number in range(arguments.rounds):
            for name, (low_water, rest) in patterns.items():
                seconds, user, system = _read(cluster.dsn(DATABASE), low_water, rest)
                print(
                    f"round {number + 1}, {name:>10}: {arguments.rows / seconds:9,.0f} rows/s, "
                    f"walsender {user:.2f} s user, {system:.2f} s system",
                    flush=True,
                )
                while cluster.slot_is_active(SLOT):
                    time.sleep(0.05)


def _read(dsn: str, low_water: int, rest: float) -> tuple[float, float, float]:
    """Read the backlog up to its end."""
    connection = start(dsn, SLOT, SLOT)
    user, system = cpu_times(connection.backend_pid) or (0.0, 0.0)
    began = time.monotonic()
    with socket.socket(fileno=os.dup(connection.socket)) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low_water)
        receive(wire, TOKEN.encode(), STATUS_UPDATE, rest)
        seconds = time.monotonic() - began
        after = cpu_times(connection.backend_pid) or (0.0, 0.0)
    connection.finish()
    return seconds, after[0] - user, after[1] - system


if __name__ == "__main__":
    main()
