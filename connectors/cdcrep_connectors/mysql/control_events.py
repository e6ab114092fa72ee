"""Reads the events that carry no rows: where files and transactions begin and end, statements, keepalives.

MySQL 9 source documentation, "Binary Log Event Format"; MariaDB documentation, "Replication Protocol":

    ROTATE        position 8   file
    XID           number 8
    XA_PREPARE    one phase 1   format 4   length 4   length 4   name
    HEARTBEAT     file                           (position: the header's)
    HEARTBEAT_V2  { type packed, length packed, value }    0 end, 1 file, 2 position
    INTVAR        1 last id, 2 next id: 1   value 8
    RAND          seed 8   seed 8
    USER_VAR      length 4   name   is null 1   [ type 1   collation 4   length 4   value   [ flags 1 ] ]
    ROWS_QUERY    length 1 (wrong for long ones)   statement
    ANNOTATE_ROWS statement
    BINLOG_CHECKPOINT   length 4   file
    START_ENCRYPTION    scheme 1   key version 4   nonce 12
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cdcrep.errors import DataError
from cdcrep_connectors.mysql.event_types import EventFlag
from cdcrep_connectors.mysql.fields import FieldReader


@dataclass(frozen=True, slots=True)
class Rotate:
    """The stream goes on in another file; sent, too, to name the file it begins in."""

    file: str
    position: int
    artificial: bool


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The server has nothing to send and has sent everything up to here."""

    file: str
    position: int


@dataclass(frozen=True, slots=True)
class XaPrepare:
    """An XA transaction ends in the state prepared, or with ONE PHASE committed."""

    xid: bytes
    """Format, lengths and name as in MariaDB's GTID events: format 4, lengths 1 and 1, name."""
    one_phase: bool


@dataclass(frozen=True, slots=True)
class FormatDescription:
    """Which server writes the file that begins."""

    server_version: str
    created: int
    """Seconds since 1970 at which the server started, in the first file it wrote; else 0."""


@dataclass(frozen=True, slots=True)
class SessionVariable:
    """A value that the statement behind it needs: INTVAR, RAND, USER_VAR. Row events never do."""

    kind: Literal["last_insert_id", "insert_id", "rand", "user_variable"]
    name: str = ""


def read_format_description(content: bytes) -> FormatDescription:
    """Read a FORMAT_DESCRIPTION event, which `framing` has checked."""
    reader = FieldReader(content, "FORMAT_DESCRIPTION event")
    reader.integer(2)
    version = reader.take(50).rstrip(b"\0")
    return FormatDescription(reader.decoded(version), reader.integer(4))


def read_rotate(content: bytes, flags: int) -> Rotate:
    """Read a ROTATE event, given its header's flags."""
    reader = FieldReader(content, "ROTATE event")
    position = reader.integer(8)
    return Rotate(_file(reader, reader.rest()), position, bool(flags & EventFlag.ARTIFICIAL))


def read_heartbeat(content: bytes, next_position: int) -> Heartbeat:
    """Read a HEARTBEAT event, given its header's position."""
    reader = FieldReader(content, "HEARTBEAT event")
    return Heartbeat(_file(reader, reader.rest()), next_position)


def read_heartbeat_v2(content: bytes) -> Heartbeat:
    """Read a HEARTBEAT_V2 event, whose position has 64 bits."""
    reader = FieldReader(content, "HEARTBEAT event")
    file, position = "", None
    while reader.left and (field := reader.packed()):
        value = FieldReader(reader.packed_bytes(), "HEARTBEAT event")
        if field == 1:
            file = _file(reader, value.rest())
        elif field == 2:
            position = value.packed()
    if position is None or not file:
        raise reader.error("it names no position")
    return Heartbeat(file, position)


def read_xid(content: bytes) -> int:
    """Read an XID event: a transaction of InnoDB commits."""
    return FieldReader(content, "XID event").integer(8)


def read_xa_prepare(content: bytes) -> XaPrepare:
    """Read an XA_PREPARE event."""
    reader = FieldReader(content, "XA_PREPARE event")
    one_phase = reader.integer(1) != 0
    head, lengths = reader.take(4), (reader.integer(4), reader.integer(4))
    if max(lengths) > 64:
        raise reader.error("a name is longer than XA allows")
    return XaPrepare(head + bytes(lengths) + reader.take(sum(lengths)), one_phase)


def read_session_variable(content: bytes, kind: Literal["INTVAR", "RAND", "USER_VAR"]) -> SessionVariable:
    """Read what a statement behind it needs."""
    reader = FieldReader(content, f"{kind} event")
    if kind == "RAND":
        reader.take(16)
        return SessionVariable("rand")
    if kind == "INTVAR":
        which = reader.integer(1)
        reader.take(8)
        if which not in (1, 2):
            raise reader.error("it is of an unknown kind")
        return SessionVariable("last_insert_id" if which == 1 else "insert_id")
    name = reader.string(reader.integer(4))
    if not reader.integer(1):
        reader.take(5)
        reader.take(reader.integer(4))
    return SessionVariable("user_variable", name)


def read_rows_query(content: bytes) -> str:
    """Read a ROWS_QUERY event: the statement behind the rows that follow, as far as it is UTF-8."""
    reader = FieldReader(content, "ROWS_QUERY event")
    reader.integer(1)
    return reader.rest().decode(errors="replace")


def read_annotate_rows(content: bytes) -> str:
    """Read an ANNOTATE_ROWS event: the statement behind the rows that follow, as far as it is UTF-8."""
    return content.decode(errors="replace")


def read_binlog_checkpoint(content: bytes) -> str:
    """Read a BINLOG_CHECKPOINT event: the oldest file that crash recovery needs."""
    reader = FieldReader(content, "BINLOG_CHECKPOINT event")
    return _file(reader, reader.take(reader.integer(4)))


def check_start_encryption(content: bytes) -> None:
    """Check a START_ENCRYPTION event: the file is encrypted, what the server sends from it is not."""
    reader = FieldReader(content, "START_ENCRYPTION event")
    if reader.integer(1) != 1:
        raise DataError("the source's binary log is encrypted by an unknown scheme")
    reader.take(16)


def _file(reader: FieldReader, name: bytes) -> str:
    if not name or b"\0" in name:
        raise reader.error("it names no file")
    return reader.decoded(name)
