"""The side of the socket that other commands use."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from cdcrep.connector import Answer
from cdcrep.errors import SetupError, TransientError
from cdcrep.service.frames import may_answer, peer_user, raise_error, receive, send
from cdcrep.service.places import address, candidates

STATUS_SECONDS: Final = 60.0


def ask_status(socket_name: str) -> dict[str, Any] | None:
    """Return what the running process says about itself; None: no process runs the pipeline here."""
    connection = _connect(socket_name)
    if connection is None:
        return None
    with connection, _as_transient():
        connection.settimeout(STATUS_SECONDS)
        send(connection, {"command": "status"})
        reply = receive(connection)
        raise_error(reply)
        status: dict[str, Any] = reply["status"]
        return status


def ask_query(socket_name: str, sql: str) -> Answer | None:
    """Have the running process run a query; None: no process runs the pipeline here.

    Raises:
        CdcrepError: what the running process raised.
        TransientError: it ended before the whole answer was here.
    """
    connection = _connect(socket_name)
    if connection is None:
        return None
    with connection, _as_transient():
        send(connection, {"command": "query", "sql": sql})
        reply = receive(connection)
        raise_error(reply)
        with connection.makefile("rb") as stream, pa.ipc.open_stream(stream) as reader:
            data = reader.read_all()
    # A stream that was cut off between two batches looks complete to Arrow.
    if data.num_rows != reply["rows"]:
        raise TransientError("the running process ended before the whole answer was here", hint="ask again")
    return Answer(data, reply["position"], reply["commit_time"])


def _connect(socket_name: str) -> socket.socket | None:
    for directory in candidates():
        connection = _connect_in(directory, socket_name)
        if connection is not None:
            return connection
    return None


def _connect_in(directory: Path, socket_name: str) -> socket.socket | None:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(address(directory / socket_name, descriptor))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except PermissionError as error:
        connection.close()
        raise SetupError(
            f"the socket {directory / socket_name} belongs to another user", hint="run as the user that runs cdcrep"
        ) from error
    finally:
        os.close(descriptor)
    if not may_answer(peer_user(connection)):
        connection.close()
        raise SetupError(f"the process behind {directory / socket_name} belongs to another user")
    return connection


@contextlib.contextmanager
def _as_transient() -> Any:
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise TransientError("the running process did not answer to the end", hint="ask again") from error
