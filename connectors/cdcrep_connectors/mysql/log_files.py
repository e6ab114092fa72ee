"""Tells files of a binary log apart that have the same name, as after a reset: by the second they were begun in."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

import numpy as np

from cdcrep.columns import integers
from cdcrep.errors import DataError
from cdcrep_connectors.mysql.connection import Connection
from cdcrep_connectors.mysql.event_types import EventType
from cdcrep_connectors.mysql.reading import BinlogReader
from cdcrep_connectors.mysql.replication import AtFile, start_dump

TYPE: Final = 4
"""Where an event's type stands in it, behind its time."""

LISTEN_SECONDS: Final = 1.0


def begun_at(connection: Connection, file: str, server_id: int) -> int:
    """Return when a file was begun, in seconds since 1970: the time of the FORMAT_DESCRIPTION that it begins with.

    Asks as the replica `server_id`; the connection is closed.

    Raises:
        DataError: the file does not begin so, or is not there.
        SetupError: the user may not replicate.
        TransientError: the connection was lost.
    """
    source = start_dump(connection, AtFile(file), server_id, until_end=True)
    wake, waker = socket.socketpair()
    with wake, waker, contextlib.closing(source):
        reader = BinlogReader(source, wake, lambda: False)
        while not reader.at_end:
            packets = reader.read(LISTEN_SECONDS)
            types = packets.buffer[packets.start + TYPE]
            if len(found := np.flatnonzero(types == EventType.FORMAT_DESCRIPTION)):
                return int(integers(packets.buffer, "<u4")[packets.start[found[0]]])
    raise DataError(f"the source's binary log {file} does not begin with a FORMAT_DESCRIPTION event")
