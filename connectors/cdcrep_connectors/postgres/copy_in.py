"""Sends CopyData messages that another server wrote to this one as they are, past libpq.

The messages of COPY TO STDOUT and COPY FROM STDIN are the same: Byte1('d'), Int32 length, content. Where the target's
connection is not encrypted, rows need not be cut out of one stream only to be framed again for the other.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from psycopg import pq
from psycopg.errors import error_from_result
from psycopg.pq.abc import PGresult

from cdcrep_connectors.postgres.connection import Connection


def can_copy_frames(connection: Connection) -> bool:
    """Tell whether this connection's socket carries the protocol as it is."""
    return not connection.pgconn.ssl_in_use


def copy_frames(connection: Connection, statement: str, pieces: Iterable[bytes]) -> tuple[int, int]:
    """Run a COPY … FROM STDIN with pieces of whole messages; return rows and bytes.

    If `pieces` raises, the COPY fails with it and the transaction is to be rolled back.

    Raises:
        psycopg.Error: the server refused.
        OSError: the connection was lost.
    """
    pgconn = connection.pgconn
    begun = pgconn.exec_(statement.encode())
    if begun.status != pq.ExecStatus.COPY_IN:
        raise error_from_result(begun, "utf-8")
    try:
        size = _send(pgconn.socket, pieces)
    except BaseException:
        _finish(connection, b"the source failed")
        raise
    done = _finish(connection, None)
    if done.status != pq.ExecStatus.COMMAND_OK:
        raise error_from_result(done, "utf-8")
    return done.command_tuples or 0, size


def _send(descriptor: int, pieces: Iterable[bytes]) -> int:
    size = 0
    with socket.socket(fileno=os.dup(descriptor)) as server:
        # The copy of the descriptor shares its mode with libpq's, which does not block otherwise.
        server.setblocking(True)
        try:
            for piece in pieces:
                server.sendall(piece)
                size += len(piece)
        finally:
            server.setblocking(False)
    return size


def _finish(connection: Connection, failure: bytes | None) -> PGresult:
    """End the COPY and return its result."""
    pgconn = connection.pgconn
    while not pgconn.put_copy_end(failure):
        pgconn.flush()
    result = pgconn.get_result()
    assert result is not None, "a command that was begun has a result"
    while pgconn.get_result() is not None:
        pass  # libpq wants to be asked until there is nothing more
    return result
