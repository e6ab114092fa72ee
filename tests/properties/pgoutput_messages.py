"""Writes what a walsender sends: the opposite of the decoder, from the manual, for tests."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal

import numpy as np

from cdcrep.columns import padded
from cdcrep.table import Column, ColumnType, Kind, Table
from cdcrep_connectors.postgres.frames import Frames, cut
from cdcrep_connectors.postgres.pgoutput import Messages
from cdcrep_connectors.postgres.relation import Relation, RelationColumn

Value = str | None | Literal[b"u"]
"""Text, NULL, or b"u": unchanged."""

Row = Sequence[Value]

SECONDS_AT_2000 = 946_684_800


def make_relation(
    columns: Sequence[str] = ("id", "v"), key: Sequence[str] = ("id",), *, oid: int = 16400, identity: str = "d"
) -> Relation:
    """Make a relation named after its oid whose key columns are flagged, or under FULL all."""
    described = tuple(RelationColumn(name, identity == "f" or name in key, 25, -1) for name in columns)
    return Relation(oid, "public", f"t{oid}", identity, described)  # type: ignore[arg-type]


def make_table(relation: Relation, key: Sequence[str] | None = None) -> Table:
    """Make the table of a relation; its key is what the relation flags unless given."""
    text = ColumnType(Kind.TEXT, "text")
    flagged = [c.name for c in relation.columns if c.is_key and relation.replica_identity != "f"]
    columns = tuple(Column(column.name, text) for column in relation.columns)
    return Table(relation.schema, relation.name, columns, tuple(flagged if key is None else key), "postgresql")


def relation_message(relation: Relation) -> bytes:
    head = struct.pack(">cI", b"R", relation.oid) + _string(relation.schema) + _string(relation.name)
    body = head + relation.replica_identity.encode() + struct.pack(">H", len(relation.columns))
    for column in relation.columns:
        body += bytes([column.is_key]) + _string(column.name)
        body += struct.pack(">Ii", column.type_oid, column.type_modifier)
    return body


def insert(oid: int, new: Row) -> bytes:
    return struct.pack(">cI", b"I", oid) + b"N" + row_data(new)


def update(oid: int, new: Row, old: Row | None = None, kind: bytes = b"K") -> bytes:
    before = b"" if old is None else kind + row_data(old)
    return struct.pack(">cI", b"U", oid) + before + b"N" + row_data(new)


def delete(oid: int, old: Row, kind: bytes = b"K") -> bytes:
    return struct.pack(">cI", b"D", oid) + kind + row_data(old)


def truncate(*oids: int, options: int = 0) -> bytes:
    return struct.pack(f">cIB{len(oids)}I", b"T", len(oids), options, *oids)


def begin(final_lsn: int, seconds: float = 0.0) -> bytes:
    return struct.pack(">cQqI", b"B", final_lsn, _microseconds(seconds), 700)


def commit(final_lsn: int, end_lsn: int, seconds: float = 0.0) -> bytes:
    return struct.pack(">cBQQq", b"C", 0, final_lsn, end_lsn, _microseconds(seconds))


def origin(name: str = "elsewhere") -> bytes:
    return struct.pack(">cQ", b"O", 1) + _string(name)


def type_message(name: str = "mood") -> bytes:
    return struct.pack(">cI", b"Y", 17000) + _string("public") + _string(name)


def logical_message(content: bytes = b"hello") -> bytes:
    return struct.pack(">cBQ", b"M", 0, 1) + _string("prefix") + struct.pack(">I", len(content)) + content


def row_data(row: Row) -> bytes:
    parts = [struct.pack(">H", len(row))]
    for value in row:
        if value is None:
            parts.append(b"n")
        elif isinstance(value, bytes):
            parts.append(b"u")
        else:
            text = value.encode()
            parts.append(b"t" + struct.pack(">I", len(text)) + text)
    return b"".join(parts)


def xlog(message: bytes, lsn: int = 1) -> bytes:
    """Put a message into an XLogData payload."""
    return struct.pack(">cQQq", b"w", lsn, lsn, 0) + message


def keepalive(wal_end: int, *, reply: bool = False) -> bytes:
    return struct.pack(">cQqB", b"k", wal_end, 0, reply)


def copy_data(payloads: Sequence[bytes]) -> bytes:
    """Put payloads into CopyData messages."""
    return b"".join(b"d" + struct.pack(">I", len(payload) + 4) + payload for payload in payloads)


def frames(payloads: Sequence[bytes], fresh: int = 0) -> Frames:
    """Lay payloads into a buffer as a reader does."""
    content = copy_data(payloads)
    buffer = padded(content)
    start, end, after = cut(buffer, 0, len(content))
    assert after == len(content)
    return Frames(buffer, start, end, fresh)


def messages(contents: Sequence[bytes]) -> Messages:
    """Lay messages into a buffer, one behind the other."""
    ends = np.cumsum(np.array([len(content) for content in contents], np.int64))
    return Messages.classify(padded(b"".join(contents)), np.concatenate([[0], ends[:-1]]).astype(np.int64), ends)


def _string(text: str) -> bytes:
    return text.encode() + b"\0"


def _microseconds(seconds: float) -> int:
    return round((seconds - SECONDS_AT_2000) * 1e6) if seconds else 0
