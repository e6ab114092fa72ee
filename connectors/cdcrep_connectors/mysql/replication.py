"""The wire of replication: registers as a replica, asks for a binary log, takes what the server sends in big bites.

MySQL source documentation, "Replication Protocol"; MariaDB, "Replication Protocol". The only place that uses what the
driver keeps to itself: it sends commands through the driver, and after the dump command reads the socket past it; the
copy's reader of results does the same by the functions at the end.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pymysql
from pymysql.constants import COMMAND

from cdcrep.errors import CdcrepError, DataError, SetupError, TransientError
from cdcrep_connectors.mysql.connection import Connection, is_mariadb
from cdcrep_connectors.mysql.failures import DRIVER_ERRORS, error_number, translate
from cdcrep_connectors.mysql.window import Window
from cdcrep_connectors.relational.arrivals import BITE

HEARTBEAT_SECONDS: Final = 5.0
"""After so much silence the server sends a heartbeat."""

SERVER_PATIENCE_SECONDS: Final = 3600
"""For which the server waits for us to read while the target takes its time with a batch."""

GTID_CAPABILITY: Final = 4
"""MARIA_SLAVE_CAPABILITY_GTID: without it MariaDB would rewrite events for older replicas."""

NON_BLOCKING: Final = 1
ANNOTATE_ROWS: Final = 2
"""MariaDB: send the statements' texts."""
HEARTBEAT_V2: Final = 2
"""MySQL: heartbeats whose positions have 64 bits."""

FIRST_SERVER_ID: Final = 1 << 31
"""Random server ids are chosen from here on: people number their servers from 1."""

LARGEST_POSITION: Final = 2**32 - 1
FIRST_POSITION: Final = 4
ERROR: Final = 0xFF

DEPRECATE_EOF: Final = 1 << 24
"""CLIENT_DEPRECATE_EOF."""

DENIED: Final = frozenset({1045, 1227})

READING: Final = "reading the binary log"


@dataclass(frozen=True)
class AfterGtids:
    """Begin after the transactions of a GTID set of MySQL, given in binary form (`GtidSet.encode`)."""

    encoded: bytes


@dataclass(frozen=True)
class AfterGtidList:
    """Begin after MariaDB's last transaction of each domain: `0-1-100,7-2-3`."""

    text: str


@dataclass(frozen=True)
class AtFile:
    """Begin with the event at a position of a file."""

    file: str
    position: int = FIRST_POSITION


StartingPoint = AfterGtids | AfterGtidList | AtFile


def start_dump(
    connection: Connection, start: StartingPoint, server_id: int, *, until_end: bool = False
) -> BinlogSocket:
    """Register as the replica `server_id` and ask for the binary log; the connection serves nothing else afterwards.

    A refusal of the starting point comes out of the first `receive`s. `until_end`: the stream ends where the log does
    (`BinlogSocket.at_end`) instead of waiting for more.

    Raises:
        SetupError: the user may not replicate, or the position cannot be asked for.
        TransientError: the connection was lost.
    """
    flags = NON_BLOCKING if until_end else 0
    if is_mariadb(connection):
        command, payload = COMMAND.COM_BINLOG_DUMP, _file_dump(start, server_id, flags)
    elif isinstance(start, AfterGtids):
        command, payload = COMMAND.COM_BINLOG_DUMP_GTID, _gtid_dump(start, server_id, flags | HEARTBEAT_V2)
    else:
        command, payload = COMMAND.COM_BINLOG_DUMP, _file_dump(start, server_id, flags | HEARTBEAT_V2)
    try:
        checksums = _negotiate(connection, start)
        driver: Any = connection
        driver._execute_command(COMMAND.COM_REGISTER_SLAVE, _registration(server_id))
        driver._read_packet()
        driver._execute_command(command, payload)
    except DRIVER_ERRORS as error:
        failure = translate(error, "starting to read the binary log")
        if error_number(error) in DENIED:
            # Said as if the password were wrong, with which we have just logged in.
            failure.hint = "GRANT REPLICATION SLAVE ON *.* TO the user that cdcrep connects as"
        raise failure from error
    return BinlogSocket(connection, checksums=checksums, until_end=until_end)


class BinlogSocket:
    """What a server sends after the dump command."""

    def __init__(self, driver: Any, *, checksums: bool, until_end: bool = False) -> None:
        self._driver = driver
        self._until_end = until_end
        self.socket: socket.socket = driver._sock
        self.socket.setblocking(False)
        self.checksums = checksums
        """Whether events have a checksum until a FORMAT_DESCRIPTION says otherwise."""
        self.thread_id = int(driver.thread_id())
        """Number under which the server's process list has this session."""
        self.ended: CdcrepError | None = None
        """Why nothing more will come."""
        self.at_end = False
        """Nothing more will come because the log ends, as was asked for."""

    def receive(self, window: Window) -> int:
        """Move what has arrived into the window without waiting, about `BITE` at most; return how many bytes."""
        total = 0
        try:
            # With TLS as well: what the socket has decrypted already does not make it readable.
            while self.ended is None and not self.at_end and total < BITE:
                if not (count := self.socket.recv_into(window.room())):
                    self.ended = TransientError("the server closed the replication connection")
                window.received(count)
                total += count
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            self.ended = translate(error, READING)
        except DataError as error:
            self.ended = error
        self._cut(window)
        return total

    def close(self) -> None:
        """End the connection; idempotent."""
        # No COM_QUIT: a server that sends a log does not read.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self._driver._force_close()

    def _cut(self, window: Window) -> None:
        try:
            window.cut()
            packet = window.other_packet()
        except CdcrepError as error:
            self.ended = error
            return
        if packet is None:
            return
        if packet[:1] == bytes([ERROR]):
            self.ended = server_error(packet)
        elif packet[:1] == b"\xfe":
            self.at_end = self._until_end
            self.ended = None if self.at_end else TransientError("the server ended the stream: it may be shutting down")
        else:
            self.ended = DataError("the server sent a packet that is no event of a binary log")


def server_error(packet: bytes, doing: str = READING) -> CdcrepError:
    """Turn an ERR packet (`0xff, number 2, [ '#', SQLSTATE 5 ], message`) into an error."""
    try:
        pymysql.err.raise_mysql_exception(packet)
    except DRIVER_ERRORS as error:
        return translate(error, doing)
    except (struct.error, IndexError, UnicodeDecodeError):
        return TransientError(f"{doing}: the server ended it with an error that cannot be read")


def random_server_id() -> int:
    """Choose a server id that no other replica is likely to have."""
    return random.SystemRandom().randrange(FIRST_SERVER_ID, 2**32)


def dump_is_working(connect: Callable[[], Connection], thread_id: int) -> bool:
    """Tell from another session whether the server is busy with our dump, so that its silence means nothing.

    An idle dump would have sent heartbeats: then, or if no other session can be opened, the connection is dead.
    """
    try:
        with connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT state FROM information_schema.processlist WHERE id = %s", [thread_id])
            row = cursor.fetchone()
    except (*DRIVER_ERRORS, CdcrepError):
        return False
    # "… has sent all binlog to … ; waiting for more updates"
    return row is not None and "waiting" not in str(row[0] or "").lower()


def _negotiate(connection: Connection, start: StartingPoint) -> bool:
    """Tell the server what this replica understands, by the user variables it looks at; tell whether checksums come.

    Each variable has two names, of which a server knows the one of its time.
    """
    nanoseconds = str(round(HEARTBEAT_SECONDS * 10**9))
    values = {
        "master_heartbeat_period": nanoseconds,
        "source_heartbeat_period": nanoseconds,
        "master_binlog_checksum": "@@global.binlog_checksum",
        "source_binlog_checksum": "@@global.binlog_checksum",
    }
    if is_mariadb(connection):
        values["mariadb_slave_capability"] = str(GTID_CAPABILITY)
        if isinstance(start, AfterGtidList):
            values["slave_connect_state"] = connection.escape(start.text)
            # A transaction that is missing is an error, even if later ones are there.
            values["slave_gtid_strict_mode"] = "1"
            values["slave_gtid_ignore_duplicates"] = "0"
    variables = [f"@{name} = {value}" for name, value in values.items()]
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION net_write_timeout = {SERVER_PATIENCE_SECONDS}, {', '.join(variables)}")
        cursor.execute("SELECT @master_binlog_checksum")
        row = cursor.fetchone()
    algorithm = str(row[0]).upper() if row else ""
    if algorithm not in ("CRC32", "NONE"):
        raise SetupError(
            f"the source's binary log has checksums of an unknown kind ({algorithm})",
            hint="SET GLOBAL binlog_checksum = CRC32",
        )
    return algorithm == "CRC32"


def _registration(server_id: int) -> bytes:
    """Server id 4, host, user and password each with their length 1, port 2, rank 4, source's id 4."""
    host = b"cdcrep"
    return struct.pack("<IB", server_id, len(host)) + host + struct.pack("<BBHII", 0, 0, 0, 0, 0)


def _file_dump(start: StartingPoint, server_id: int, flags: int) -> bytes:
    """Position 4, flags 2, server id 4, file. MariaDB: without a file where `slave_connect_state` is set."""
    if isinstance(start, AfterGtids):
        raise SetupError("MariaDB does not know the GTID sets of MySQL")
    place = start if isinstance(start, AtFile) else AtFile("")
    if not FIRST_POSITION <= place.position <= LARGEST_POSITION:
        raise SetupError(
            f"position {place.position} of {place.file} cannot be asked for",
            hint="switch on GTIDs (gtid_mode = ON), or keep binary logs below 4 GiB",
        )
    return struct.pack("<IHI", place.position, flags, server_id) + place.file.encode()


def _gtid_dump(start: AfterGtids, server_id: int, flags: int) -> bytes:
    """Flags 2, server id 4, file with its length 4, position 8, GTID set with its length 4."""
    return struct.pack("<HIIQI", flags, server_id, 0, FIRST_POSITION, len(start.encoded)) + start.encoded


def send_command(connection: Connection, command: int, payload: bytes) -> None:
    """Send a command whose answer is read with `read_packet`, or from `socket_of`."""
    driver: Any = connection
    driver._execute_command(command, payload)


def read_packet(connection: Connection) -> bytes:
    """Read one packet of an answer; an error that the server answers with is raised."""
    driver: Any = connection
    content: bytes = driver._read_packet().get_all_data()
    return content


def socket_of(connection: Connection) -> socket.socket:
    """Return the socket, with or without TLS; between answers the driver has read no further than it returned."""
    driver: Any = connection
    found: socket.socket = driver._sock
    return found


def ends_without_eof(connection: Connection) -> bool:
    """Tell whether it was agreed that OK packets stand for EOF packets, or nothing where they add nothing."""
    driver: Any = connection
    return bool(driver.client_flag & driver.server_capabilities & DEPRECATE_EOF)


def hang_up(connection: Connection) -> None:
    """End a connection in whatever state it is, also under a thread that waits for it; idempotent."""
    driver: Any = connection
    with contextlib.suppress(OSError, AttributeError):
        driver._sock.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        driver._force_close()
