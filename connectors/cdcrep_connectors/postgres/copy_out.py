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
_header_of = struct.Struct(">BI").pack


def copy_out(connection: Connection, statement: str, *, framed: bool = False) -> Iterator[bytes]:
    """Yield the output of a COPY statement, many rows in one piece. The connection can only be closed afterwards.

    With `framed` the pieces are whole CopyData messages, which another server takes as they are (`copy_in`).

    Raises:
        psycopg.Error: the server refused, or the connection was lost.
    """
    if connection.pgconn.ssl_in_use:
        return _through_libpq(connection, statement, framed)
    return _from_socket(connection, statement, framed)


def interrupt(connection: Connection) -> None:
    """Make whoever reads from a connection fail; thread-safe, and leaves closing it to the reader."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as server:
        server.shutdown(socket.SHUT_RDWR)


def _through_libpq(connection: Connection, statement: str, framed: bool) -> Iterator[bytes]:
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        rows: list[bytes | bytearray | memoryview] = []
        size = 0
        for row in copy:
            if framed:
                rows.append(_header_of(COPY_DATA, len(row) + 4))
            rows.append(row)
            size += len(row)
            if size >= PIECE:
                yield b"".join(rows)
                rows, size = [], 0
        if rows:
            yield b"".join(rows)


def _from_socket(connection: Connection, statement: str, framed: bool) -> Iterator[bytes]:
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
            used = -1
            while used:
                piece, used, ended = (_messages if framed else _cut)(buffer, filled)
                if piece:
                    yield piece
                if ended:
                    return
                filled -= used
                if used:
                    buffer[:filled] = buffer[used : used + filled]
            # A message longer than the buffer: make room for all of it.
            needed = _header(buffer, 0)[1] + 1 if filled >= 5 else 0
            if needed > len(buffer):
                buffer = buffer[:filled] + bytearray(needed + PIECE - filled)


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


def _messages(buffer: bytearray, filled: int) -> tuple[bytes, int, bool]:
    """Do as `_cut` does, but keep the CopyData messages whole: nothing has to be cut out and joined."""
    if filled and buffer[0] != COPY_DATA:
        # What stands before the rows and behind them; rows follow in the next round.
        return _cut(buffer, _end_of_first(buffer, filled))
    at, last = 0, filled - 5
    while at <= last and buffer[at] == COPY_DATA:
        end = at + 1 + _header(buffer, at)[1]
        if end > filled:
            break
        at = end
    return bytes(memoryview(buffer)[:at]), at, False


def _end_of_first(buffer: bytearray, filled: int) -> int:
    """Return where the first message ends, or 0 while it is incomplete."""
    end = 1 + int(_header(buffer, 0)[1]) if filled >= 5 else 0
    return end if end <= filled else 0


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
