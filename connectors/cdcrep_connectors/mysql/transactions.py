"""Finds the transactions among events, and what names them, for all events at once. No I/O.

Every transaction begins with an event that names it: GTID, ANONYMOUS_GTID, GTID_TAGGED, MariaDB's GTID. It ends with
XID, with QUERY `COMMIT` or `ROLLBACK`, with XA_PREPARE, or is one QUERY by itself (DDL, XA COMMIT, XA ROLLBACK).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from cdcrep.columns import Bytes, Mask, Positions, integers
from cdcrep.errors import DataError
from cdcrep_connectors.mysql.event_types import EventType
from cdcrep_connectors.mysql.framing import HEADER, Events
from cdcrep_connectors.mysql.gtid_events import MariadbGtidFlag, read_gtid, read_mariadb_gtid, read_tagged_gtid
from cdcrep_connectors.mysql.gtid_sets import Origin
from cdcrep_connectors.mysql.mariadb_gtid import MariadbGtid

QUERY_FIXED: Final = 13
GTID_LENGTH: Final = 25
"""Flags, uuid and number of a GTID event."""
_NAMING: Final = np.zeros(256, np.bool_)
_NAMING[[EventType.GTID, EventType.ANONYMOUS_GTID, EventType.GTID_TAGGED, EventType.MARIADB_GTID]] = True


class Ending(IntEnum):
    """How a transaction ended."""

    COMMIT = 1
    ROLLBACK = 2
    """What is in it did not happen, but for tables without transactions."""
    PREPARED = 3
    """XA: what is in it waits for XA COMMIT or XA ROLLBACK, unless the event says ONE PHASE."""
    STATEMENT = 4
    """One statement, committed by itself."""


@dataclass(frozen=True)
class Transactions:
    """n whole transactions among events, in commit order."""

    first: Positions
    """(n,) index of the event that names it."""
    last: Positions
    """(n,) index of its last event."""
    endings: NDArray[np.uint8]
    """(n,) `Ending` numbers."""
    rest: int
    """Index of the event that names a transaction which is not whole; the number of events if there is none."""

    def __len__(self) -> int:
        """Count the transactions."""
        return len(self.first)


def find_transactions(events: Events, *, mariadb: bool) -> Transactions:
    """Find the transactions among expanded events that begin with a transaction, or with events outside of any.

    Raises:
        DataError: a transaction begins inside another.
    """
    naming = np.flatnonzero(_NAMING[events.types])
    endings = find_endings(events)
    ends = np.flatnonzero(endings)
    following = np.append(naming, len(events))[1:]
    at = np.searchsorted(ends, naming)
    end = np.append(ends, len(events))[at]
    last = np.where(end < following, end, -1)
    kinds = endings[np.maximum(last, 0)]
    for i in np.flatnonzero(last < 0).tolist():
        last[i] = _only_statement(events, int(naming[i]), int(following[i]), mariadb=mariadb)
        kinds[i] = Ending.STATEMENT
        if last[i] < 0 and i + 1 < len(naming):
            raise DataError("the source began a transaction before the end of the one before")
    whole = int((last >= 0).sum())
    rest = int(naming[whole]) if whole < len(naming) else len(events)
    return Transactions(naming[:whole], last[:whole], kinds[:whole], rest)


def find_endings(events: Events) -> NDArray[np.uint8]:
    """Return `Ending` numbers of the events that end transactions, 0 of others."""
    found = np.zeros(len(events), np.uint8)
    found[events.types == EventType.XID] = Ending.COMMIT
    found[events.types == EventType.XA_PREPARE] = Ending.PREPARED
    queries = np.flatnonzero(events.types == EventType.QUERY)
    start = statement_start(events, queries)
    end = events.end[queries]
    found[queries[statement_is(events.buffer, start, end, b"COMMIT")]] = Ending.COMMIT
    found[queries[statement_is(events.buffer, start, end, b"ROLLBACK")]] = Ending.ROLLBACK
    return found


def statement_start(events: Events, queries: Positions) -> Positions:
    """Return where the statements of QUERY events begin.

    Raises:
        DataError: an event is too short.
    """
    begin = events.start[queries] + HEADER
    if (begin + QUERY_FIXED > events.end[queries]).any():
        raise DataError("a QUERY event of the source is too short")
    variables = integers(events.buffer, "<u2")[begin + 11].astype(np.int64)
    start = begin + QUERY_FIXED + variables + events.buffer[begin + 8] + 1
    if (start > events.end[queries]).any():
        raise DataError("a QUERY event of the source is too short")
    return start


def statement_is(buffer: Bytes, start: Positions, end: Positions, word: bytes) -> Mask:
    """Tell which slices are a word of at most eight characters."""
    wanted = np.uint64(int.from_bytes(word, "little"))
    mask = np.uint64((1 << 8 * len(word)) - 1)
    same: Mask = (end - start == len(word)) & (integers(buffer, "<u8")[start] & mask == wanted)
    return same


def _only_statement(events: Events, naming: int, following: int, *, mariadb: bool) -> int:
    """Return the index of the QUERY that is all of a transaction without an ending, or -1 if more is to come."""
    if mariadb:
        flags = read_mariadb_gtid(events.content(naming), 0).flags
        if not flags & MariadbGtidFlag.STANDALONE:
            return -1
    queries = naming + 1 + np.flatnonzero(events.types[naming + 1 : following] == EventType.QUERY)
    if not len(queries):
        return -1
    start = int(statement_start(events, queries[:1])[0])
    statement = events.buffer[start : min(int(events.end[queries[0]]), start + 16)].tobytes().upper()
    opening = statement == b"BEGIN" or statement.startswith(b"XA START")
    return -1 if opening and not mariadb else int(queries[0])


def gtid_runs(events: Events, naming: Positions) -> Iterator[tuple[Origin, int, int]]:
    """Yield what GTID events of MySQL name, as origin, first and last number; anonymous ones are left out.

    Raises:
        DataError: an event is none.
    """
    types = events.types[naming]
    for index in naming[types == EventType.GTID_TAGGED].tolist():
        gtid = read_tagged_gtid(events.content(index)).gtid
        assert gtid is not None
        yield gtid.origin, gtid.number, gtid.number
    plain = naming[types == EventType.GTID]
    begin = events.start[plain] + HEADER
    if (begin + GTID_LENGTH > events.end[plain]).any():
        raise DataError("a GTID event of the source is too short")
    high, low = (integers(events.buffer, ">u8")[begin + offset].astype(np.uint64) for offset in (1, 9))
    numbers = integers(events.buffer, "<i8")[begin + 17]
    if len(numbers) and int(numbers.min()) < 1:
        raise DataError("a GTID event of the source has a transaction number that cannot be one")
    goes_on = (numbers[1:] == numbers[:-1] + 1) & (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    firsts = np.flatnonzero(np.append(True, ~goes_on))[: len(numbers)]
    lasts = np.append(firsts[1:], len(numbers)) - 1
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=False):
        if last >= first:
            uuid = UUID(int=int(high[first]) << 64 | int(low[first]))
            yield Origin(uuid), int(numbers[first]), int(numbers[last])


def last_gtids(events: Events, naming: Positions) -> list[MariadbGtid]:
    """Return the last transaction of each domain that GTID events of MariaDB name.

    Raises:
        DataError: an event is none.
    """
    begin = events.start[naming] + HEADER
    if (begin + 13 > events.end[naming]).any():
        raise DataError("a GTID event of the source is too short")
    domains = integers(events.buffer, "<u4")[begin + 8]
    found = []
    for domain in np.unique(domains).tolist():
        index = int(naming[np.flatnonzero(domains == domain)[-1]])
        server = int(integers(events.buffer, "<u4")[events.start[index] + 5])
        found.append(read_mariadb_gtid(events.content(index), server).gtid)
    return found


def commit_times(events: Events, transactions: Transactions) -> NDArray[np.float64]:
    """Return (n,) when the transactions committed, in seconds since 1970: of the second, as event headers say."""
    return integers(events.buffer, "<u4")[events.start[transactions.last]].astype(np.float64)


def precise_commit_time(events: Events, index: int) -> float | None:
    """Return when the transaction that an event of MySQL names committed, to the microsecond; None: it does not say."""
    content = events.content(index)
    tagged = events.types[index] == EventType.GTID_TAGGED
    time = (read_tagged_gtid(content) if tagged else read_gtid(content, anonymous=True)).commit_time
    return None if time is None else time / 1e6
