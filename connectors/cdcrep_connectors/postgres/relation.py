"""Reads the rare messages of pgoutput: Relation, Truncate, and those that carry nothing for us.

PostgreSQL manual, "Logical Replication Message Formats", protocol version 1 (servers 14 to 18):

    Relation   Byte1('R') Int32 oid String namespace String name Int8 replica identity Int16 columns
               { Int8 flags (1: key) String name Int32 type oid Int32 type modifier }
    Truncate   Byte1('T') Int32 relations Int8 options (1: CASCADE, 2: RESTART IDENTITY) { Int32 oid }
    Type       Byte1('Y') Int32 oid String namespace String name
    Origin     Byte1('O') Int64 lsn String name
    Message    Byte1('M') Int8 flags (1: transactional) Int64 lsn String prefix Int32 length Byten content
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

from cdcrep.errors import DataError

ReplicaIdentity = Literal["d", "n", "f", "i"]


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """One column as a Relation message describes it."""

    name: str
    is_key: bool
    """Part of the replica identity; under FULL every column is."""
    type_oid: int
    type_modifier: int


@dataclass(frozen=True, slots=True)
class Relation:
    """The shape of the rows that follow, as the publisher describes it."""

    oid: int
    schema: str
    name: str
    replica_identity: ReplicaIdentity
    """The manual's letters: default, nothing, full, index."""
    columns: tuple[RelationColumn, ...]


class Reader:
    """Reads one message field by field; every field that would end behind the message is a DataError."""

    def __init__(self, message: bytes, what: str) -> None:
        self._message = message
        self._what = what
        self._at = 1

    def integer(self, layout: str) -> int:
        """Read a number, given its `struct` letter."""
        try:
            (value,) = struct.unpack_from(f">{layout}", self._message, self._at)
        except struct.error:
            raise self._error("it ends in the middle of a number") from None
        self._at += struct.calcsize(f">{layout}")
        return int(value)

    def string(self) -> str:
        """Read a string up to its zero byte."""
        end = self._message.find(b"\0", self._at)
        if end < 0:
            raise self._error("a string has no end")
        try:
            text = self._message[self._at : end].decode()
        except UnicodeDecodeError:
            raise self._error("a name is not UTF-8") from None
        self._at = end + 1
        return text

    def skip(self, length: int) -> None:
        """Pass over bytes."""
        if length < 0 or self._at + length > len(self._message):
            raise self._error("it ends in the middle of its content")
        self._at += length

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self._at != len(self._message):
            raise self._error("it is longer than its content")

    def _error(self, why: str) -> DataError:
        return DataError(f"the {self._what} message of the source cannot be read: {why}")


def read_relation(message: bytes) -> Relation:
    """Read a Relation message."""
    reader = Reader(message, "Relation")
    oid = reader.integer("I")
    # An empty name stands for pg_catalog.
    schema = reader.string() or "pg_catalog"
    name = reader.string()
    identity = chr(reader.integer("B"))
    if identity not in ("d", "n", "f", "i"):
        raise DataError(f"{schema}.{name}: the Relation message has an unknown replica identity")
    columns = []
    for _ in range(reader.integer("H")):
        flags = reader.integer("B")
        columns.append(RelationColumn(reader.string(), bool(flags & 1), reader.integer("I"), reader.integer("i")))
    reader.end()
    if len({column.name for column in columns}) != len(columns):
        raise DataError(f"{schema}.{name}: the Relation message names a column twice")
    return Relation(oid, schema, name, identity, tuple(columns))  # type: ignore[arg-type]


def read_truncate(message: bytes) -> tuple[int, ...]:
    """Read a Truncate message: the oids of the relations that were emptied.

    The options need no action: the server names every published table that CASCADE reached, and what RESTART IDENTITY
    resets is not copied.
    """
    reader = Reader(message, "Truncate")
    count = reader.integer("I")
    if reader.integer("B") & ~3:
        raise DataError("the Truncate message of the source has unknown options")
    if len(message) != 6 + 4 * count:
        raise DataError("the Truncate message of the source does not have the length that it announces")
    return struct.unpack_from(f">{count}I", message, 6)


def check_ignored(message: bytes) -> None:
    """Check a message that carries nothing for us: Type, Origin, Message."""
    kind = message[:1]
    if kind == b"Y":
        reader = Reader(message, "Type")
        reader.integer("I")
        reader.string()
        reader.string()
    elif kind == b"O":
        reader = Reader(message, "Origin")
        reader.integer("Q")
        reader.string()
    else:
        reader = Reader(message, "logical decoding")
        reader.integer("B")
        reader.integer("Q")
        reader.string()
        reader.skip(reader.integer("I"))
    reader.end()
