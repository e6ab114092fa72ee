"""The wire of logical replication: starts it, reads what the server sends in big bites, sends CopyData.

PostgreSQL manual, "Message Flow", section "COPY Operations" (servers 14 to 18). Without TLS the socket is read past
libpq, whose cost for each message is several times that of everything else; with TLS libpq reads.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from typing import Any, Final, Protocol

import psycopg
from psycopg import pq

from cdcrep.errors import CdcrepError, TransientError
from cdcrep_connectors.postgres.failures import translate
from cdcrep_connectors.postgres.window import Window
from cdcrep_connectors.relational.arrivals import BITE

Connection = psycopg.Connection[Any]

SEND_SECONDS: Final = 10.0
FAREWELL_SECONDS: Final = 2.0

COPY_DONE: Final = b"c\0\0\0\4"
TERMINATE: Final = b"X\0\0\0\4"

READING: Final = "reading the replication stream"


class FrameSource(Protocol):
    """A connection in COPY_BOTH mode."""

    socket: socket.socket
    ended: CdcrepError | None
    """Why nothing more will come."""

    def receive(self, window: Window) -> int:
        """Move what has arrived into the window without waiting, about `BITE` at most; return how many bytes."""
        ...

    def send(self, payload: bytes) -> None:
        """Send one CopyData message; thread-safe."""
        ...

    def finish(self) -> None:
        """Send CopyDone and wait a moment for the server to read what we sent."""
        ...


def start_replication(connection: Connection, command: bytes) -> FrameSource:
    """Send START_REPLICATION. An error of the server comes out of the first `receive`s."""
    connection.pgconn.send_query(command)
    while connection.pgconn.flush():
        select.select([], [connection.pgconn.socket], [], SEND_SECONDS)
    return LibpqFrames(connection) if connection.pgconn.ssl_in_use else SocketFrames(connection)


class SocketFrames:
    """Reads and writes the socket itself; libpq must not be used on this connection any more, except to close it."""

    def __init__(self, connection: Connection) -> None:
        self.socket = socket.socket(fileno=os.dup(connection.pgconn.socket))
        self.ended: CdcrepError | None = None
        self._lock = threading.Lock()

    def receive(self, window: Window) -> int:
        """Move what has arrived into the window."""
        total = 0
        try:
            while self.ended is None and total < BITE:
                if not (count := self.socket.recv_into(window.room())):
                    self.ended = TransientError("the server closed the replication connection")
                window.received(count)
                total += count
        except BlockingIOError:
            pass
        except OSError as error:
            self.ended = translate(error, READING)
        window.cut()
        while (message := window.other_message()) is not None:
            self._take(*message)
            window.cut()
        return total

    def send(self, payload: bytes) -> None:
        """Send one CopyData message."""
        self._send(b"d" + struct.pack(">I", len(payload) + 4) + payload)

    def finish(self) -> None:
        """Send CopyDone and read until the server hangs up: closing earlier could destroy our last message."""
        # Without Terminate the server would answer and then wait for the next command.
        self._send(COPY_DONE + TERMINATE)
        deadline = time.monotonic() + FAREWELL_SECONDS
        # What was received and not consumed is of no interest; the server may be in the middle of a message.
        while self.ended is None and (left := deadline - time.monotonic()) > 0:
            if not select.select([self.socket], [], [], left)[0]:
                return
            try:
                if not self.socket.recv(1 << 20):
                    return
            except BlockingIOError:
                continue
            except OSError:
                return

    def _send(self, content: bytes) -> None:
        left = memoryview(content)
        with self._lock:
            while left:
                try:
                    left = left[self.socket.send(left) :]
                except BlockingIOError:
                    if not select.select([], [self.socket], [], SEND_SECONDS)[1]:
                        raise TransientError("the server does not read what is sent to it") from None
                except OSError as error:
                    raise translate(error, "sending a status update") from error

    def _take(self, kind: int, content: bytes) -> None:
        """Handle a message outside of CopyData."""
        if kind == ord("E"):
            self.ended = server_error(content)
        elif kind in b"cC" and self.ended is None:
            self.ended = TransientError("the server ended the replication stream: it may be shutting down")


class LibpqFrames:
    """Reads and writes through libpq, which knows about TLS."""

    def __init__(self, connection: Connection) -> None:
        self.socket = socket.socket(fileno=os.dup(connection.pgconn.socket))
        self.ended: CdcrepError | None = None
        self._pgconn = connection.pgconn
        self._lock = threading.Lock()
        self._started = False

    def receive(self, window: Window) -> int:
        """Move what has arrived into the window."""
        payloads: list[bytes | memoryview] = []
        total, asked = 0, False
        try:
            with self._lock:
                while total < BITE and self.ended is None and (self._started or self._start()):
                    size, payload = self._pgconn.get_copy_data(1)
                    if size > 0:
                        payloads.append(payload)
                        total += size
                    elif size < 0:
                        self.ended = self._result()
                    elif asked and not select.select([self.socket], [], [], 0)[0]:
                        break
                    else:
                        # Even if the socket is not readable: TLS may have decrypted more than libpq took from it.
                        self._pgconn.consume_input()
                    asked = size == 0
        except psycopg.Error as error:
            self.ended = translate(error, READING)
        if payloads:
            window.append(payloads)
        return total

    def send(self, payload: bytes) -> None:
        """Send one CopyData message, unless the server has not answered START_REPLICATION yet and expects none."""
        try:
            with self._lock:
                if not self._started:
                    return
                self._pgconn.put_copy_data(payload)
                self._flush()
        except psycopg.Error as error:
            raise translate(error, "sending a status update") from error

    def finish(self) -> None:
        """Send CopyDone and wait for the server's."""
        deadline = time.monotonic() + FAREWELL_SECONDS
        try:
            with self._lock:
                self._pgconn.put_copy_end()
                self._flush()
                while self.ended is None and (left := deadline - time.monotonic()) > 0:
                    size, _ = self._pgconn.get_copy_data(1)
                    if size < 0:
                        return
                    if size == 0:
                        select.select([self.socket], [], [], left)
                        self._pgconn.consume_input()
        except psycopg.Error as error:
            raise translate(error, "ending the replication stream") from error

    def _start(self) -> bool:
        """Take the answer to START_REPLICATION, if it has come."""
        self._pgconn.consume_input()
        if self._pgconn.is_busy():
            return False
        result = self._pgconn.get_result()
        if result is None or result.status != pq.ExecStatus.COPY_BOTH:
            self.ended = _result_error(result)
        self._started = True
        return self.ended is None

    def _result(self) -> CdcrepError:
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            return _result_error(result)
        return TransientError("the server ended the replication stream: it may be shutting down")

    def _flush(self) -> None:
        deadline = time.monotonic() + SEND_SECONDS
        while self._pgconn.flush():
            if time.monotonic() > deadline:
                raise TransientError("the server does not read what is sent to it")
            select.select([], [self.socket], [], SEND_SECONDS)


def server_error(content: bytes) -> CdcrepError:
    """Turn an ErrorResponse message's fields (`Byte1 code String value`, ended by a zero byte) into an error."""
    fields = {part[:1]: part[1:].decode(errors="backslashreplace") for part in content.split(b"\0") if part}
    state, message = fields.get(b"C", "XX000"), fields.get(b"M", "no message")
    try:
        error: psycopg.Error = psycopg.errors.lookup(state)(message)
    except KeyError:
        error = psycopg.DatabaseError(message)
        error.sqlstate = state
    return translate(error, READING)


def _result_error(result: pq.abc.PGresult | None) -> CdcrepError:
    if result is None:
        return TransientError("the server did not start the replication stream")
    return translate(psycopg.errors.error_from_result(result), READING)
