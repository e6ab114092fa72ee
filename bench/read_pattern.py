"""Measures what the way of reading costs the sending server: `python -m bench.read_pattern [--rows N] [--rounds N]`.

The same backlog of inserts is read and dropped: at once whenever there is something, whenever the kernel counts 64 KiB
(`SO_RCVLOWAT`), and with rests between two reads. Prints the seconds that passed and the walsender's CPU.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from psycopg import pq

from bench.clusters import Clusters
from bench.processes import cpu_times
from bench.workloads import inserts

SLOT: Final = "bench_reading"
BUFFER_BYTES: Final = 1 << 20
LOW_WATER_BYTES: Final = 64 << 10
STATUS_UPDATE: Final = b"d" + struct.pack("!I", 38) + b"r" + bytes(33)

Pause = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    patterns = {"at once": 0.0, "64 KiB": -1.0, **{f"{ms} ms rest": ms / 1000 for ms in (2, 5, 10, 15, 20, 30, 50)}}
    with Clusters(15, Path(tempfile.gettempdir())) as clusters:
        cluster, workload = clusters.source, inserts(clusters.source, arguments.rows)
        cluster.create_database("reading")
        workload.set_up("reading")
        cluster.execute(
            "reading",
            f"CREATE PUBLICATION {SLOT} FOR TABLE {', '.join(workload.include)}",
            f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')",
        )
        workload.write("reading")
        end = cluster.execute("reading", "SELECT pg_current_wal_lsn()")[0][0]
        clusters.checkpoint()
        for number in range(arguments.rounds):
            for name, rest in patterns.items():
                seconds, user, system, reads = _read(cluster.dsn("reading"), _lsn(end), rest)
                print(
                    f"round {number + 1}, {name:>10}: {arguments.rows / seconds:9,.0f} rows/s, {reads:7,} reads, "
                    f"walsender {user:.2f} s user, {system:.2f} s system",
                    flush=True,
                )
                while cluster.slot_is_active(SLOT):
                    time.sleep(0.05)


def _lsn(text: str) -> int:
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def _read(dsn: str, end: int, rest: float) -> tuple[float, float, float, int]:
    """Read the backlog up to a place in the log; a negative rest means a low-water mark."""
    connection = pq.PGconn.connect(f"{dsn} replication=database sslmode=disable gssencmode=disable".encode())
    command = f"START_REPLICATION SLOT {SLOT} LOGICAL 0/0 (proto_version '1', publication_names '{SLOT}')"
    if connection.exec_(command.encode()).status != pq.ExecStatus.COPY_BOTH:
        raise SystemExit(connection.get_error_message())
    user, system = cpu_times(connection.backend_pid) or (0.0, 0.0)
    buffer, tail, reads, began = bytearray(BUFFER_BYTES), b"", 0, time.monotonic()
    with socket.socket(fileno=os.dup(connection.socket)) as wire:
        if rest < 0:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, LOW_WATER_BYTES)
        ready = select.poll()
        ready.register(wire, select.POLLIN)
        while not _has_passed(tail, end):
            try:
                count = wire.recv_into(buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if rest > 0:
                    time.sleep(rest)
                else:
                    ready.poll(2)
                continue
            if not count:
                raise SystemExit("the server closed the connection")
            reads += 1
            tail = (tail + buffer[max(0, count - 64) : count])[-64:]
            if reads % 1000 == 0:
                wire.sendall(STATUS_UPDATE)
        seconds = time.monotonic() - began
        after = cpu_times(connection.backend_pid) or (0.0, 0.0)
    connection.finish()
    return seconds, after[0] - user, after[1] - system, reads


def _has_passed(tail: bytes, end: int) -> bool:
    """Tell whether the last message is a keepalive, which an idle server sends, from behind a place in the log."""
    keepalive = tail[-23:]
    return keepalive[:1] == b"d" and keepalive[5:6] == b"k" and struct.unpack("!Q", keepalive[6:14])[0] >= end


if __name__ == "__main__":
    main()
