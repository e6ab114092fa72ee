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
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import numpy as np
import psycopg

from cdcrep.columns import Bytes, Positions, integers
from cdcrep.errors import DataError
from cdcrep_connectors.postgres.connection import Connection

PIECE: Final = 1 << 20
"""Bytes to gather before handing them on."""

COPY_DATA: Final = ord("d")
NEWLINE: Final = ord("\n")
SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
"""What COPY's binary form begins with, before flags (4 bytes) and the rest of its header, which has a length (4)."""
LENGTH: Final = 4
"""Bytes of the length before each value."""
COUNT: Final = 2
"""Bytes of the number of columns before a row."""
END_OF_ROWS: Final = -1
"""Stands where the number of another row's columns would."""
READY: Final = ord("Z")
ERROR: Final = ord("E")
IGNORED: Final = frozenset(b"HcCNSA")

HEADER: Final = 5
"""Bytes of a message before its content."""

BLOCK: Final = 96 << 10
"""Bytes in which rows are looked for together: what that needs stays in the processor's cache."""

_header = struct.Struct(">BI").unpack_from
_header_of = struct.Struct(">BI").pack


Piece = bytes | memoryview


@dataclass(frozen=True)
class Rows:
    """Rows of COPY's binary form."""

    buffer: Bytes
    start: Positions
    """(n,) offsets, ascending, behind the number of a row's columns."""
    end: Positions
    """(n,) offsets behind the rows."""


Content = TypeVar("Content", bound=Piece | Rows | None)

Cut = Callable[[bytearray, int], tuple[Content, int]]
"""Takes a buffer that begins with CopyData, and how far it is filled; returns content and bytes used."""


def copy_out(connection: Connection, statement: str, *, framed: bool = False) -> Iterator[bytes]:
    """Yield the output of a COPY statement, many rows in one piece. The connection can only be closed afterwards.

    With `framed` the pieces are whole CopyData messages, which another server takes as they are (`copy_in`).

    Raises:
        psycopg.Error: the server refused, or the connection was lost.
    """
    if connection.pgconn.ssl_in_use:
        return _through_libpq(connection, statement, lambda row: _header_of(COPY_DATA, len(row) + 4) if framed else b"")
    return _from_socket(connection, statement, _messages if framed else _cut)


def copy_rows(connection: Connection, statement: str, lead: bytes, size: int) -> Iterator[Piece]:
    """Yield the output of a COPY statement in text or CSV form: whole rows of about `size` bytes together.

    Each row has the five bytes `lead` before it. The next piece may overwrite this one.

    Raises:
        psycopg.Error: the server refused, or the connection was lost.
    """
    if connection.pgconn.ssl_in_use:
        return _through_libpq(connection, statement, lambda _: lead, size)
    return _from_socket(connection, statement, partial(_led, lead=lead), size)


def copy_fields(connection: Connection, statement: str, fields: int, size: int) -> Iterator[Rows]:
    """Yield the output of a COPY statement in binary form, `fields` columns a row: rows of about `size` bytes together.

    The next rows may overwrite these.

    Raises:
        psycopg.Error: the server refused, or the connection was lost.
        DataError: a row has another number of columns.
    """
    if not connection.pgconn.ssl_in_use:
        return (rows for rows in _from_socket(connection, statement, partial(_fields, fields=fields), size) if rows)
    # As they would have arrived without encryption.
    messages = _through_libpq(connection, statement, lambda row: _header_of(COPY_DATA, len(row) + 4), size)
    return (rows for piece in messages if (rows := _fields(bytearray(piece), len(piece), fields=fields)[0]))


def interrupt(connection: Connection) -> None:
    """Make whoever reads from a connection fail; thread-safe, and leaves closing it to the reader."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as server:
        server.shutdown(socket.SHUT_RDWR)


def _through_libpq(
    connection: Connection, statement: str, before: Callable[[bytes | bytearray | memoryview], bytes], size: int = PIECE
) -> Iterator[bytes]:
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        rows: list[bytes | bytearray | memoryview] = []
        gathered = 0
        for row in copy:
            rows += (before(row), row)
            gathered += len(row)
            if gathered >= size:
                yield b"".join(rows)
                rows, gathered = [], 0
        if rows:
            yield b"".join(rows)


def _from_socket(connection: Connection, statement: str, cut: Cut[Content], size: int = PIECE) -> Iterator[Content]:
    connection.pgconn.send_query(statement.encode())
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as server:
        # libpq's sockets do not block; this one is only closed after us, so libpq does not mind.
        server.setblocking(True)
        buffer, filled = bytearray(2 * size), 0
        while True:
            received = server.recv_into(memoryview(buffer)[filled:])
            if not received:
                raise psycopg.OperationalError("the server closed the connection unexpectedly while rows were copied")
            filled += received
            if filled < size and buffer[0] == COPY_DATA and not _ends(buffer, filled):
                continue
            used = -1
            while used:
                if filled and buffer[0] != COPY_DATA:
                    # What stands before the rows and behind them.
                    used, ended = _skip(buffer, filled)
                    if ended:
                        return
                else:
                    piece, used = cut(buffer, filled)
                    if piece:
                        yield piece
                filled -= used
                if used:
                    buffer[:filled] = buffer[used : used + filled]
            # A message longer than the buffer: make room for all of it.
            needed = _header(buffer, 0)[1] + 1 if filled >= 5 else 0
            if needed > len(buffer):
                buffer = buffer[:filled] + bytearray(needed + size - filled)


def _ends(buffer: bytearray, filled: int) -> bool:
    """Tell whether the received bytes end with ReadyForQuery, or look as if they did."""
    return buffer[filled - 6 : filled - 1] == b"Z\0\0\0\x05"


def _skip(buffer: bytearray, filled: int) -> tuple[int, bool]:
    """Pass over one message that is not CopyData; return the bytes used, and whether the answer is complete."""
    if filled < HEADER:
        return 0, False
    kind, length = _header(buffer, 0)
    end = 1 + length
    if end > filled:
        return 0, False
    if kind == ERROR:
        raise _error(bytes(buffer[HEADER:end]))
    if kind != READY and kind not in IGNORED:
        raise psycopg.OperationalError(f"the server sent an unexpected message of kind {kind:#x} while copying")
    return end, kind == READY


def _cut(buffer: bytearray, filled: int) -> tuple[bytes, int]:
    """Return the content of the CopyData messages, and how many bytes were used."""
    rows: list[memoryview] = []
    content = memoryview(buffer)
    at, last = 0, filled - HEADER
    append, header = rows.append, _header
    while at <= last and buffer[at] == COPY_DATA:
        end = at + 1 + header(content, at)[1]
        if end > filled:
            break
        append(content[at + HEADER : end])
        at = end
    return b"".join(rows), at


def _messages(buffer: bytearray, filled: int) -> tuple[bytes, int]:
    """Do as `_cut` does, but keep the CopyData messages whole: nothing has to be cut out and joined."""
    at, last = 0, filled - HEADER
    while at <= last and buffer[at] == COPY_DATA:
        end = at + 1 + _header(buffer, at)[1]
        if end > filled:
            break
        at = end
    return bytes(memoryview(buffer)[:at]), at


def _led(buffer: bytearray, filled: int, *, lead: bytes) -> tuple[Piece, int]:
    """Do as `_messages` does for text, and write `lead` over the messages' headers."""
    content = np.frombuffer(buffer, np.uint8)
    at = 0
    while at + HEADER <= filled and buffer[at] == COPY_DATA:
        starts, after = _rows(content, at, min(filled, at + BLOCK))
        if not len(starts):  # a long row
            after = at + 1 + _header(buffer, at)[1]
            if after > filled:
                break
            starts = np.array([at])
        for offset, byte in enumerate(lead):
            content[starts + offset] = byte
        at = after
    return memoryview(buffer)[:at], at


def _rows(content: Bytes, begin: int, filled: int) -> tuple[Positions, int]:
    """Find the messages in `content[begin:filled]`, which begins with one; return where they begin, and what follows.

    Guesses by what stands there: the end of a row, the kind, and the length's first byte, 0, of which text has none.
    """
    likely = content[begin : filled - 4] == COPY_DATA
    likely[1:] &= content[begin : filled - 5] == NEWLINE
    starts = np.flatnonzero(likely) + begin
    return _proven(content, starts[content[starts + 1] == 0], begin, filled)


def _fields(buffer: bytearray, filled: int, *, fields: int) -> tuple[Rows | None, int]:
    """Do as `_cut` does for the binary form, but leave the rows where they are."""
    content = np.frombuffer(buffer, np.uint8)
    starts: list[Positions] = []
    ends: list[Positions] = []
    at = 0
    while at + HEADER + COUNT <= filled and buffer[at] == COPY_DATA:
        messages, after = _counted(content, at, min(filled, at + BLOCK), fields)
        if len(messages):
            starts.append(messages + HEADER + COUNT)
            ends.append(np.append(messages[1:], after))
        else:  # the first message, the last, or a long row
            after = at + 1 + _header(buffer, at)[1]
            if after > filled:
                break
            start = _first_column(buffer, at, after, fields)
            if start is not None:
                starts.append(np.array([start]))
                ends.append(np.array([after]))
        at = after
    return Rows(content, np.concatenate(starts), np.concatenate(ends)) if starts else None, at


def _counted(content: Bytes, begin: int, filled: int, fields: int) -> tuple[Positions, int]:
    """Do as `_rows` does for rows of so many columns in binary form."""
    # The two bytes that are hardly ever 0; then those that seem to fit.
    likely = content[begin : filled - 6] == COPY_DATA
    likely &= content[begin + 6 : filled] == fields & 0xFF
    starts = np.flatnonzero(likely) + begin
    fits = integers(content, ">u2")[starts + HEADER] == fields
    lengths = integers(content, ">u4")[starts + 1]
    fits &= (lengths >= HEADER - 1 + COUNT + LENGTH * fields) & (lengths < 1 << 24)
    return _proven(content, starts[fits], begin, filled)


def _first_column(buffer: bytearray, begin: int, end: int, fields: int) -> int | None:
    """Return where the columns of one message's row begin; None: it only begins or ends the rows."""
    at = begin + HEADER
    if buffer.startswith(SIGNATURE, at):
        at += len(SIGNATURE) + 4
        at += 4 + int.from_bytes(buffer[at : at + 4], "big")
        if at == end:
            return None
    start = at + COUNT
    count = int.from_bytes(buffer[at:start], "big", signed=True)
    if start > end or count not in (fields, END_OF_ROWS):
        raise DataError("the server sent a row of another number of columns than it was asked for")
    return start if count == fields else None


def _proven(content: Bytes, starts: Positions, begin: int, filled: int) -> tuple[Positions, int]:
    """Keep of the messages that seem to begin at `starts` those that do: each where the one before it ends."""
    ends = starts + 1 + integers(content, ">u4")[starts + 1]
    broken = np.flatnonzero(starts[1:] != ends[:-1])
    proven = int(broken[0]) + 1 if len(broken) else len(starts)
    if proven and (ends[proven - 1] > filled or starts[0] != begin):
        proven = proven - 1 if starts[0] == begin else 0
    return starts[:proven], int(ends[proven - 1]) if proven else begin


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
