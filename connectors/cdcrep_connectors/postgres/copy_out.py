"""Reads COPY … TO STDOUT in large pieces, past libpq where the connection is not encrypted.

libpq hands out one row at a time, which costs Python about a microsecond per row. The messages are simple enough to
be cut here (PostgreSQL manual, "Message Formats"; the same since 7.4): Byte1 kind, Int32 length (itself included).

    H  CopyOutResponse   ignored          c  CopyDone          ignored
    d  CopyData          the content      C  CommandComplete   ignored
    E  ErrorResponse     raised           Z  ReadyForQuery     the end
    N  NoticeResponse, S ParameterStatus, A NotificationResponse: ignored
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import psycopg

from cdcrep_connectors.postgres.connection import Connection

PIECE: Final = 1 << 20
"""Bytes to gather before handing them on."""

COPY_DATA: Final = ord("d")
READY: Final = ord("Z")
ERROR: Final = ord("E")
IGNORED: Final = frozenset(b"HcCNSA")

_header = struct.Struct(">BI").unpack_from


def copy_out(connection: Connection, statement: str) -> Iterator[bytes]:
    """Yield the output of a COPY statement, many rows in one piece. The connection can only be closed afterwards.

    Raises:
        psycopg.Error: the server refused, or the connection was lost.
    """
    if connection.pgconn.ssl_in_use:
        return _through_libpq(connection, statement)
    return _from_socket(connection, statement)


def interrupt(connection: Connection) -> None:
    """Make whoever reads from a connection fail; thread-safe, and leaves closing it to the reader."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as server:
        server.shutdown(socket.SHUT_RDWR)


def _through_libpq(connection: Connection, statement: str) -> Iterator[bytes]:
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        rows: list[bytes | bytearray | memoryview] = []
        size = 0
        for row in copy:
            rows.append(row)
            size += len(row)
            if size >= PIECE:
                yield b"".join(rows)
                rows, size = [], 0
        if rows:
            yield b"".join(rows)


def _from_socket(connection: Connection, statement: str) -> Iterator[bytes]:
    connection.pgconn.send_query(statement.encode())
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as server:
        # libpq's sockets do not block; this one is only closed after us, so libpq does not mind.
        server.setblocking(True)
        buffer, filled = bytearray(2 * PIECE), 0
        while True:
            received = server.recv_into(memoryview(buffer)[filled:])
            if not received:
                raise psycopg.OperationalError("the server closed the connection unexpectedly while rows were copied")
            filled += received
            if filled < PIECE and buffer[0] == COPY_DATA and not _ends(buffer, filled):
                continue
            piece, used, ended = _cut(buffer, filled)
            if piece:
                yield piece
            if ended:
                return
            rest = filled - used
            # A message longer than the buffer: make room for all of it.
            needed = _header(buffer, used)[1] + 1 if rest >= 5 else 0
            if needed > len(buffer):
                buffer = buffer[used:filled] + bytearray(needed + PIECE - rest)
            else:
                buffer[:rest] = buffer[used:filled]
            filled = rest


def _ends(buffer: bytearray, filled: int) -> bool:
    """Tell whether the received bytes end with ReadyForQuery, or look as if they did."""
    return buffer[filled - 6 : filled - 1] == b"Z\0\0\0\x05"


def _cut(buffer: bytearray, filled: int) -> tuple[bytes, int, bool]:
    """Return the content of the CopyData messages, how many bytes were used, and whether the answer is complete."""
    rows: list[memoryview] = []
    content = memoryview(buffer)
    at, ended = 0, False
    append, header = rows.append, _header
    while at + 5 <= filled:
        kind, length = header(content, at)
        end = at + 1 + length
        if end > filled:
            break
        if kind == COPY_DATA:
            append(content[at + 5 : end])
        elif kind == READY:
            ended, at = True, end
            break
        elif kind == ERROR:
            raise _error(bytes(content[at + 5 : end]))
        elif kind not in IGNORED:
            raise psycopg.OperationalError(f"the server sent an unexpected message of kind {kind:#x} while copying")
        at = end
    piece = b"".join(rows)
    return piece, at, ended


def _error(content: bytes) -> psycopg.Error:
    """Make psycopg's exception of an ErrorResponse: { Byte1 field String value } zero byte."""
    fields = {part[:1]: part[1:].decode(errors="replace") for part in content.split(b"\0") if part}
    state = fields.get(b"C", "XX000")
    try:
        kind = psycopg.errors.lookup(state)
    except KeyError:
        kind = psycopg.DatabaseError
    error: psycopg.Error = kind(fields.get(b"M", "the server gave no reason"))
    error.sqlstate = state
    return error
