"""What goes over the socket: a length and a JSON object each way; after the answer to a query, an Arrow IPC stream.

4 bytes   length of the JSON text, big-endian
n bytes   JSON object, UTF-8
"""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any, Final

from cdcrep import errors
from cdcrep.errors import CdcrepError, TransientError
from cdcrep.redaction import redact

LARGEST: Final = 16 << 20

_PEER: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid; unix(7)


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Write one frame."""
    text = json.dumps(message).encode()
    connection.sendall(len(text).to_bytes(4, "big") + text)


def receive(connection: socket.socket) -> dict[str, Any]:
    """Read one frame.

    Raises:
        TransientError: the other side went away, or what came is no frame.
    """
    length = int.from_bytes(_read(connection, 4), "big")
    if length > LARGEST:
        raise TransientError("the other side of the socket does not speak this protocol")
    try:
        message = json.loads(_read(connection, length))
    except ValueError as error:
        raise TransientError("the other side of the socket does not speak this protocol") from error
    if not isinstance(message, dict):
        raise TransientError("the other side of the socket does not speak this protocol")
    return message


def peer_user(connection: socket.socket) -> int:
    """Return the user id of the process at the other end."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return int(_PEER.unpack(packed)[1])


def may_ask(user: int) -> bool:
    """Tell whether we answer a process of this user: our own and root's."""
    return user in {os.geteuid(), 0}


def may_answer(user: int) -> bool:
    """Tell whether we believe a process of this user: our own and root's; root looks after everybody's."""
    return may_ask(user) or os.geteuid() == 0


def from_error(error: Exception) -> dict[str, Any]:
    """Describe a failure for the other side."""
    if isinstance(error, CdcrepError):
        hint = None if error.hint is None else redact(error.hint)
        return {"error": {"kind": type(error).__name__, "message": redact(error.message), "hint": hint}}
    return {"error": {"kind": "CdcrepError", "message": f"the running process failed: {type(error).__name__}"}}


def raise_error(message: dict[str, Any]) -> None:
    """Raise what `from_error` described; do nothing for other messages."""
    described = message.get("error")
    if described is None:
        return
    kind = getattr(errors, str(described.get("kind")), CdcrepError)
    if not (isinstance(kind, type) and issubclass(kind, CdcrepError)):
        kind = CdcrepError
    raise kind(str(described.get("message")), hint=described.get("hint"))


def _read(connection: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(min(length - len(parts), 1 << 16))
        if not part:
            raise TransientError("the other side closed the socket")
        parts += part
    return bytes(parts)
