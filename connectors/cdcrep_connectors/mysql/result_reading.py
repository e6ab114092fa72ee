"""Runs a SELECT as a prepared statement and makes record batches of its rows, straight from the socket.

The rows of a prepared statement are exact (numbers are not written as text) and cost the server less than those of a
plain query, whose values are all text.

A reader that wakes up for every 16 KiB that a server sends makes it slow. So while much arrives, the kernel wakes us
only when `LOW_WATER` bytes are there or `PAUSE_SECONDS` have passed.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from typing import Final

import pyarrow as pa
from pymysql.constants import COMMAND

from cdcrep.errors import DataError, TransientError
from cdcrep.table import Column, TableId
from cdcrep_connectors.mysql.connection import Connection
from cdcrep_connectors.mysql.dates import Tally
from cdcrep_connectors.mysql.failures import translate
from cdcrep_connectors.mysql.fields import FieldReader
from cdcrep_connectors.mysql.replication import (
    ends_without_eof,
    read_packet,
    send_command,
    server_error,
    socket_of,
)
from cdcrep_connectors.mysql.result_packets import Answer
from cdcrep_connectors.mysql.result_values import Result, SentColumn
from cdcrep_connectors.mysql.types import ImpossibleDates

BITE: Final = 1 << 20
"""Bytes of rows that are decoded together: what belongs to them should stay in the processor's cache."""

LOW_WATER: Final = 256 << 10
PAUSE_SECONDS: Final = 0.002

ERROR: Final = b"\xff"
END: Final = b"\xfe"
EOF_BYTES: Final = 5
"""Length of an EOF packet; an OK packet that stands for it is longer."""


class ResultReader:
    """Reads one result on a session, which serves nothing else until all of it was read."""

    def __init__(self, session: Connection, doing: str) -> None:
        """`doing` completes "failed while" in errors: `copying shop.orders`."""
        self._session = session
        self._doing = doing
        self._answer = Answer()
        self._socket = socket_of(session)
        self._low_water = 1
        # The kernel ignores the low-water mark of Unix sockets when it decides whom to wake.
        self._has_low_water = self._socket.family in (socket.AF_INET, socket.AF_INET6)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self.is_busy = False
        """The session has a result that was not read to its end."""

    def batches(
        self, statement: str, id_: TableId, columns: Sequence[Column], dates: ImpossibleDates, tally: Tally
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a SELECT of these columns, about `BITE` bytes at a time.

        Raises:
            TransientError, SetupError: the server or the connection failed, or a column was altered.
            DataError: a value cannot be carried; the message names table and column.
            pymysql.MySQLError, OSError: the statement was refused.
        """
        prepared = self._prepare(statement)
        self.is_busy = True
        send_command(self._session, COMMAND.COM_STMT_EXECUTE, prepared + struct.pack("<BI", 0, 1))
        timeout = self._socket.gettimeout()
        self._socket.setblocking(False)
        try:
            sent = self._definitions()
            yield from self._rows(id_, sent, columns, dates, tally)
        finally:
            with contextlib.suppress(OSError):
                self._wake_at(1)
                self._socket.settimeout(timeout)
        send_command(self._session, COMMAND.COM_STMT_CLOSE, prepared)

    def skip(self) -> None:
        """Pass over what is left of the result.

        Raises:
            CdcrepError: the connection failed.
        """
        timeout = self._socket.gettimeout()
        self._socket.setblocking(False)
        try:
            while self.is_busy:
                _, start, _ = self._answer.rows()
                if not len(start) and not self._ends():
                    self._fill()
        finally:
            with contextlib.suppress(OSError):
                self._wake_at(1)
                self._socket.settimeout(timeout)

    def _prepare(self, statement: str) -> bytes:
        """Return the statement's number, in four bytes; see "COM_STMT_PREPARE Response"."""
        send_command(self._session, COMMAND.COM_STMT_PREPARE, statement.encode())
        answer = FieldReader(read_packet(self._session), "answer")
        answer.integer(1)
        number, columns, parameters = answer.take(4), answer.integer(2), answer.integer(2)
        ends = 0 if ends_without_eof(self._session) else (columns > 0) + (parameters > 0)
        for _ in range(columns + parameters + ends):
            read_packet(self._session)
        return number

    def _definitions(self) -> list[SentColumn]:
        count = FieldReader(self._packet(), "answer").packed()
        sent = [SentColumn.parse(self._packet()) for _ in range(count)]
        if not ends_without_eof(self._session):
            self._packet()
        return sent

    def _rows(
        self, id_: TableId, sent: Sequence[SentColumn], columns: Sequence[Column], dates: ImpossibleDates, tally: Tally
    ) -> Iterator[pa.RecordBatch]:
        result = Result(id_, sent, columns, dates, tally)
        while self.is_busy:
            buffer, start, end = self._answer.rows()
            if len(start):
                yield result.decode(buffer, start, end)
            elif not self._ends():
                self._fill()

    def _ends(self) -> bool:
        """Take the packet that ends the rows, if it is there."""
        packet = self._answer.packet()
        if packet is None:
            return False
        self.is_busy = False
        if packet[:1] == ERROR:
            raise server_error(packet, self._doing)
        if packet[:1] != END:
            raise DataError("the source sent a packet that is no row of a result")
        return True

    def _packet(self) -> bytes:
        """Wait for one packet."""
        while (packet := self._answer.packet()) is None:
            self._fill()
        if packet[:1] == ERROR:
            self.is_busy = False
            raise server_error(packet, self._doing)
        return packet

    def _fill(self) -> None:
        """Wait for bytes; while more of them come soon, take a bite."""
        try:
            if not self._receive():
                self._wait(None, 1)
                self._receive()
            while self._answer.waiting < BITE:
                self._wait(PAUSE_SECONDS, LOW_WATER)
                if not self._receive():
                    return
        except OSError as error:
            raise translate(error, self._doing) from error

    def _receive(self) -> int:
        """Take what has arrived without waiting, about `BITE` at most; return how many bytes."""
        total = 0
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            # With TLS as well: what the socket has decrypted already does not make it readable.
            while total < BITE:
                if not (count := self._socket.recv_into(self._answer.room())):
                    raise TransientError(f"{self._doing}: the server closed the connection")
                self._answer.received(count)
                total += count
        return total

    def _wait(self, seconds: float | None, low_water: int) -> None:
        self._wake_at(low_water)
        self._poll.poll(None if seconds is None else seconds * 1000)

    def _wake_at(self, low_water: int) -> None:
        if low_water != self._low_water and self._has_low_water:
            with contextlib.suppress(OSError):  # not on this platform: then every wait is an eager one
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low_water)
            self._low_water = low_water
