"""Receives one backlog over a raw socket and counts bytes: `python -m bench.consumers.receiver` (see `raw`).

Arguments: dsn, slot, publication, token. Prints `bytes time` when the token has arrived; the time is of
`time.monotonic`, which is the same in all processes of a machine.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from typing import Final

from psycopg import pq

LOW_WATER_BYTES: Final = 64 << 10
BUFFER_BYTES: Final = 1 << 20
TAIL_MILLISECONDS: Final = 2
"""How long less than a low-water mark's worth may lie unread: the end of the backlog."""
STATUS_SECONDS: Final = 10.0

# CopyData, Standby status update: written, flushed and applied unknown, no clock, no reply wanted.
STATUS_UPDATE: Final = b"d" + struct.pack("!I", 38) + b"r" + bytes(33)


def main(dsn: str, slot: str, publication: str, token: str) -> None:
    connection = pq.PGconn.connect(f"{dsn} replication=database sslmode=disable gssencmode=disable".encode())
    if connection.status != pq.ConnStatus.OK:
        raise SystemExit(connection.get_error_message())
    command = (
        f"START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 (proto_version '1', publication_names '\"{publication}\"')"
    )
    result = connection.exec_(command.encode())
    if result.status != pq.ExecStatus.COPY_BOTH:
        raise SystemExit(result.get_error_message())
    with socket.socket(fileno=os.dup(connection.socket)) as wire:
        received = receive(wire, token.encode())
    print(received, time.monotonic(), flush=True)


def receive(wire: socket.socket, token: bytes) -> int:
    """Read until the token has gone by; return the number of bytes."""
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, LOW_WATER_BYTES)
    ready = select.poll()
    ready.register(wire, select.POLLIN)
    # The token may lie across two reads: its length's worth of the previous one stays in front.
    overlap = len(token) - 1
    buffer = bytearray(overlap + BUFFER_BYTES)
    view = memoryview(buffer)
    received = 0
    next_status = time.monotonic() + STATUS_SECONDS
    while True:
        ready.poll(TAIL_MILLISECONDS)
        try:
            count = wire.recv_into(view[overlap:], 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
        if not count:
            raise SystemExit("the server closed the connection")
        received += count
        if buffer.find(token, 0, overlap + count) >= 0:
            return received
        buffer[:overlap] = buffer[count : overlap + count]
        if time.monotonic() > next_status:
            wire.sendall(STATUS_UPDATE)
            next_status += STATUS_SECONDS


if __name__ == "__main__":
    main(*sys.argv[1:])
