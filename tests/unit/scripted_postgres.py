"""A PostgreSQL server that answers one query with bytes made beforehand, to a real driver."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import psycopg

from cdcrep_connectors.postgres.connection import Connection

READY = b"Z\0\0\0\x05I"
COPY_OUT = b"H\0\0\0\x09\x01\0\x01\0\x01"
DONE = b"c\0\0\0\x04" + b"C\0\0\0\x0bCOPY 1\0" + READY
SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"


def message(content: bytes) -> bytes:
    """Make a CopyData message."""
    return b"d" + struct.pack(">I", len(content) + 4) + content


def row(*values: bytes | None) -> bytes:
    """Make a row of COPY's binary form."""
    return struct.pack(">h", len(values)) + fields(*values)


def fields(*values: bytes | None) -> bytes:
    """Make a row's columns."""
    return b"".join(struct.pack(">i", -1) if v is None else struct.pack(">i", len(v)) + v for v in values)


def copied(*rows: bytes) -> bytes:
    """Make the answer to COPY … TO STDOUT (FORMAT binary): the header comes with the first row, or with the end."""
    contents = [*rows, END]
    return COPY_OUT + b"".join(map(message, [SIGNATURE + contents[0], *contents[1:]])) + DONE


@contextmanager
def answering(answer: bytes) -> Iterator[Connection]:
    """Connect to a server that answers every connection's first query with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_serve, args=(listening, answer))
        thread.start()
        port = listening.getsockname()[1]
        try:
            address = f"host=127.0.0.1 port={port} sslmode=disable gssencmode=disable"
            with closing(psycopg.connect(f"{address} user=u dbname=d", autocommit=True)) as connection:
                yield connection
        finally:
            thread.join()


def _serve(listening: socket.socket, answer: bytes) -> None:
    server, _ = listening.accept()
    with server, suppress(OSError):
        server.settimeout(10)
        server.recv(1 << 16)  # StartupMessage
        server.sendall(b"R\0\0\0\x08\0\0\0\0" + b"S\0\0\0\x19client_encoding\0UTF8\0" + READY)
        server.recv(1 << 16)  # Query
        server.sendall(answer)
