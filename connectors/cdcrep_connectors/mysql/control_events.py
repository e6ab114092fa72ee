"""Reads the events that say where a stream stands: its file, keepalives, and where a transaction was prepared.

MySQL 9 source documentation, "Binary Log Event Format"; MariaDB documentation, "Replication Protocol":

    ROTATE        position 8   file
    XA_PREPARE    one phase 1   format 4   length 4   length 4   name
    HEARTBEAT     file                           (position: the header's)
    HEARTBEAT_V2  { type packed, length packed, value }    0 end, 1 file, 2 position

What other events without rows hold (XID, INTVAR, ROWS_QUERY, BINLOG_CHECKPOINT …) does not matter to a stream of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from cdcrep_connectors.mysql.fields import FieldReader


@dataclass(frozen=True, slots=True)
class Rotate:
    """The stream goes on in another file; sent, too, to name the file it begins in."""

    file: str
    position: int


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


def read_rotate(content: bytes) -> Rotate:
    """Read a ROTATE event."""
    reader = FieldReader(content, "ROTATE event")
    position = reader.integer(8)
    return Rotate(_file(reader, reader.rest()), position)


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


def read_xa_prepare(content: bytes) -> XaPrepare:
    """Read an XA_PREPARE event."""
    reader = FieldReader(content, "XA_PREPARE event")
    one_phase = reader.integer(1) != 0
    head, lengths = reader.take(4), (reader.integer(4), reader.integer(4))
    if max(lengths) > 64:
        raise reader.error("a name is longer than XA allows")
    return XaPrepare(head + bytes(lengths) + reader.take(sum(lengths)), one_phase)


def _file(reader: FieldReader, name: bytes) -> str:
    if not name or b"\0" in name:
        raise reader.error("it names no file")
    return reader.decoded(name)
