"""Receives one backlog over a raw socket and counts bytes: `python -m bench.consumers.receiver` (see `raw`).

Arguments: dsn, slot, publication, token. Prints `bytes time` when the token has arrived, and waits to be
killed; the time is of `time.monotonic`, which is the same in all processes of a machine.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
import time
from typing import Final

from psycopg import pq
from psycopg.pq.abc import PGconn

REST_SECONDS: Final = 0.02
"""The pause between two reads that costs the server least (`docs/decisions/0006-rest-between-reads.md`)."""
BUFFER_BYTES: Final = 1 << 20
STATUS_SECONDS: Final = 10.0
TAIL_SECONDS: Final = 0.002
"""How long less than a low-water mark's worth may lie unread: the end of the backlog."""

# CopyData, Standby status update: written, flushed and applied unknown, no clock, no reply wanted.
STATUS_UPDATE: Final = b"d" + struct.pack("!I", 38) + b"r" + bytes(33)


def main(dsn: str, slot: str, publication: str, token: str) -> None:
    connection = start(dsn, slot, publication)
    with socket.socket(fileno=os.dup(connection.socket)) as wire:
        received = receive(wire, token.encode(), STATUS_UPDATE)
        print(received, time.monotonic(), flush=True)
        signal.pause()


def start(dsn: str, slot: str, publication: str) -> PGconn:
    """Connect and have a slot's changes sent."""
    connection = pq.PGconn.connect(f"{dsn} replication=database sslmode=disable gssencmode=disable".encode())
    if connection.status != pq.ConnStatus.OK:
        raise SystemExit(connection.get_error_message())
    command = (
        f"START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 (proto_version '1', publication_names '\"{publication}\"')"
    )
    result = connection.exec_(command.encode())
    if result.status != pq.ExecStatus.COPY_BOTH:
        raise SystemExit(result.get_error_message())
    return connection


def receive(wire: socket.socket, token: bytes, status: bytes = b"", rest_seconds: float = REST_SECONDS) -> int:
    """Read until the token has gone by; return the number of bytes.

    Rests between two reads, or waits where the rest is 0; sends `status` now and then.
    """
    # The token may lie across two reads: its length's worth of the previous one stays in front.
    overlap = len(token) - 1
    buffer = bytearray(overlap + BUFFER_BYTES)
    view = memoryview(buffer)
    received = 0
    next_status = time.monotonic() + STATUS_SECONDS
    while True:
        try:
            count = wire.recv_into(view[overlap:], 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            time.sleep(rest_seconds) if rest_seconds else select.select([wire], [], [], TAIL_SECONDS)
            continue
        if not count:
            raise SystemExit("the server closed the connection")
        received += count
        if buffer.find(token, 0, overlap + count) >= 0:
            return received
        buffer[:overlap] = buffer[count : overlap + count]
        if time.monotonic() > next_status:
            wire.sendall(status)
            next_status += STATUS_SECONDS


if __name__ == "__main__":
    main(*sys.argv[1:])
