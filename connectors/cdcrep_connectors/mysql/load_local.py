"""Sends rows to LOAD DATA LOCAL INFILE out of memory: the only place where a server that asks for a file is answered.

MySQL 9.7 manual, "Security Considerations for LOAD DATA LOCAL": a server may answer any statement with a request for
any file of the client's machine. No file is ever opened here; who asks for another name than the one in our statement
gets nothing. The driver has no public way to send anything but a file: this uses its private calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from pymysql.constants import COMMAND
from pymysql.protocol import LoadLocalPacketWrapper, OKPacketWrapper

from cdcrep.errors import CdcrepError, SetupError
from cdcrep_connectors.mysql.connection import Connection

NAME: Final = "cdcrep rows"
"""What stands in our statements in the place of a file's name."""

PIECE_BYTES: Final = 256 << 10
"""The protocol's packets hold 16 MB; larger pieces than this are not quicker."""

COUNTS: Final = re.compile(r"Records: (\d+)  Deleted: (\d+)  Skipped: (\d+)  Warnings: (\d+)")


@dataclass(frozen=True)
class Loaded:
    """What a server says it has made of the lines."""

    rows: int
    complaints: int
    """Lines that it left out, and values that it changed."""


def load_local(connection: Connection, statement: bytes, pieces: Iterable[memoryview]) -> Loaded:
    """Run a LOAD DATA LOCAL INFILE 'cdcrep rows' statement with these lines.

    The server does not stop at a value that does not fit: who finds complaints must roll back.

    Raises:
        SetupError: the server asked for something else; the connection is closed.
    """
    driver: Any = connection
    driver._execute_command(COMMAND.COM_QUERY, statement)
    try:
        _check_request(driver._read_packet())
        for piece in pieces:
            for start in range(0, len(piece), PIECE_BYTES):
                driver.write_packet(piece[start : start + PIECE_BYTES])
        driver.write_packet(b"")
    except CdcrepError:
        # An empty packet would be the end of complete rows.
        driver._force_close()
        raise
    answer = driver._read_packet()
    if not answer.is_ok_packet():
        driver._force_close()
        raise SetupError("the target answered LOAD DATA with neither success nor an error")
    done = OKPacketWrapper(answer)
    driver.server_status = done.server_status
    counts = COUNTS.search(bytes(done.message).decode(errors="replace"))
    complaints = sum(map(int, counts.groups()[1:])) if counts else 1
    return Loaded(int(done.affected_rows), complaints + int(done.warning_count))


def _check_request(packet: Any) -> None:
    if not packet.is_load_local_packet():
        raise SetupError("the target did not ask for the rows of LOAD DATA")
    if LoadLocalPacketWrapper(packet).filename != NAME.encode():
        raise SetupError(
            "the server asked for a file of this machine, which was refused",
            hint="this server asks its clients for their files: do not connect to it",
        )
