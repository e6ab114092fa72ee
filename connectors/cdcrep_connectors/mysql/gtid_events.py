"""Reads the events that name the transactions: GTID, GTID_TAGGED, MariaDB's GTID, and the lists at a file's begin.

MySQL 9 source documentation, "Gtid_event"; MariaDB documentation, "GTID_EVENT", "GTID_LIST_EVENT":

    GTID        flags 1   uuid 16   number 8   2: 1   last committed 8   sequence 8   commit time 7
                [ original commit time 7, if bit 55 of the first ]   transaction length packed   server version 4 ...
    GTID_TAGGED   the same fields by number, in the form of `serialization`
    MariaDB     sequence 8   domain 4   flags 1   [ commit id 8 ]   [ XA: format 4, lengths 1 1, name ]   [ ... ]
    GTID_LIST   count and flags 4   { domain 4 server 4 sequence 8 }

Commit times are microseconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final
from uuid import UUID

from cdcrep.errors import DataError
from cdcrep_connectors.mysql.fields import FieldReader
from cdcrep_connectors.mysql.gtid_sets import Gtid, GtidSet, Origin
from cdcrep_connectors.mysql.mariadb_gtid import MariadbGtid, MariadbGtidState
from cdcrep_connectors.mysql.serialization import read_number, read_signed

LOGICAL_TIMESTAMPS: Final = 2
ORIGINAL_FOLLOWS: Final = 1 << 55
SERIALIZATION_VERSION: Final = 1
UUID_BYTES: Final = 16


class MariadbGtidFlag(IntFlag):
    """What a MariaDB GTID event says about its transaction."""

    STANDALONE = 1
    """One event follows, without COMMIT."""
    GROUP_COMMIT_ID = 2
    TRANSACTIONAL = 4
    ALLOW_PARALLEL = 8
    WAITED = 16
    DDL = 32
    PREPARED_XA = 64
    COMPLETED_XA = 128


class _Field(IntEnum):
    FLAGS = 0
    UUID = 1
    NUMBER = 2
    TAG = 3
    LAST_COMMITTED = 4
    SEQUENCE = 5
    IMMEDIATE_COMMIT_TIME = 6
    ORIGINAL_COMMIT_TIME = 7
    TRANSACTION_LENGTH = 8
    IMMEDIATE_SERVER_VERSION = 9
    ORIGINAL_SERVER_VERSION = 10
    COMMIT_GROUP_TICKET = 11


@dataclass(frozen=True, slots=True)
class GtidEvent:
    """What begins a transaction on MySQL."""

    gtid: Gtid | None
    """None: anonymous."""
    commit_time: int | None
    """On the server that sends it, microseconds since 1970; None: not said."""
    transaction_length: int | None
    """Bytes of the transaction in the file, this event included."""


@dataclass(frozen=True, slots=True)
class MariadbGtidEvent:
    """What begins a transaction on MariaDB."""

    gtid: MariadbGtid
    flags: MariadbGtidFlag
    xid: bytes | None
    """Of an XA transaction that is prepared, committed or rolled back: format, lengths and name as they are."""

    @property
    def standalone(self) -> bool:
        """Tell whether the transaction is the one event that follows."""
        return bool(self.flags & MariadbGtidFlag.STANDALONE)


def read_gtid(content: bytes, *, anonymous: bool) -> GtidEvent:
    """Read a GTID or ANONYMOUS_GTID event."""
    reader = FieldReader(content, "GTID event")
    reader.integer(1)
    uuid = UUID(bytes=reader.take(UUID_BYTES))
    number = reader.integer(8, signed=True)
    gtid = None if anonymous else Gtid(Origin(uuid), _check_number(number))
    # Older servers end here, or behind the logical timestamps.
    if not reader.left or reader.integer(1) != LOGICAL_TIMESTAMPS:
        return GtidEvent(gtid, None, None)
    reader.take(16)
    if reader.left < 7:
        return GtidEvent(gtid, None, None)
    commit_time = reader.integer(7)
    if commit_time & ORIGINAL_FOLLOWS:
        commit_time &= ~ORIGINAL_FOLLOWS
        reader.take(7)
    length = reader.packed() if reader.left else None
    return GtidEvent(gtid, commit_time, length)


def read_tagged_gtid(content: bytes) -> GtidEvent:
    """Read a GTID_TAGGED event."""
    reader = FieldReader(content, "GTID_TAGGED event")
    if read_number(reader) != SERIALIZATION_VERSION:
        raise reader.error("its serialization is of an unknown version")
    if read_number(reader) != len(content):
        raise reader.error("it does not have the length that it announces")
    if read_number(reader) > len(_Field):
        raise reader.error("it has an unknown field that must not be passed over")
    uuid, tag, number, commit_time, length, before = b"", "", 0, None, None, -1
    while reader.left:
        field = read_number(reader)
        if field <= before:
            raise reader.error("its fields are out of order")
        before = field
        if field >= len(_Field):
            break
        if field == _Field.UUID:
            uuid = bytes(_byte(reader) for _ in range(UUID_BYTES))
        elif field == _Field.TAG:
            tag = reader.string(read_number(reader))
        elif field == _Field.NUMBER:
            number = read_signed(reader)
        elif field in (_Field.LAST_COMMITTED, _Field.SEQUENCE):
            read_signed(reader)
        elif field == _Field.IMMEDIATE_COMMIT_TIME:
            commit_time = read_number(reader)
        elif field == _Field.TRANSACTION_LENGTH:
            length = read_number(reader)
        else:
            read_number(reader)
    if len(uuid) != UUID_BYTES:
        raise reader.error("it names no server")
    return GtidEvent(Gtid(Origin(UUID(bytes=uuid), tag), _check_number(number)), commit_time, length)


def read_mariadb_gtid(content: bytes, server: int) -> MariadbGtidEvent:
    """Read a GTID event of MariaDB; the server stands in the event's header."""
    reader = FieldReader(content, "GTID event")
    sequence, domain = reader.integer(8), reader.integer(4)
    flags = MariadbGtidFlag(reader.integer(1))
    if flags & MariadbGtidFlag.GROUP_COMMIT_ID:
        reader.take(8)
    xid = None
    if flags & (MariadbGtidFlag.PREPARED_XA | MariadbGtidFlag.COMPLETED_XA):
        head = reader.take(6)
        xid = head + reader.take(head[4] + head[5])
    return MariadbGtidEvent(MariadbGtid(domain, server, sequence), flags, xid)


def read_previous_gtids(content: bytes) -> GtidSet:
    """Read a PREVIOUS_GTIDS event: what the files before this one hold or held."""
    return GtidSet.decode(content)


def read_gtid_list(content: bytes) -> MariadbGtidState:
    """Read a GTID_LIST event: where each domain stood when this file began.

    A domain stands in it once for each server that ever wrote into it, the last writer behind the others.
    """
    reader = FieldReader(content, "GTID_LIST event")
    count = reader.integer(4) & (2**28 - 1)
    if reader.left < 16 * count:
        raise reader.error("it ends in the middle of a field")
    return MariadbGtidState.of(
        MariadbGtid(reader.integer(4), reader.integer(4), reader.integer(8)) for _ in range(count)
    )


def _byte(reader: FieldReader) -> int:
    number = read_number(reader)
    if number > 0xFF:
        raise reader.error("a byte of its server's uuid is none")
    return number


def _check_number(number: int) -> int:
    if number < 1:
        raise DataError("a GTID event of the source has a transaction number that cannot be one")
    return number
