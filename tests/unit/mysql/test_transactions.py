"""Transactions are found among events, however they begin and end."""

from __future__ import annotations

import struct
from uuid import UUID

import numpy as np
import pytest

from cdcrep.errors import DataError
from cdcrep_connectors.mysql.event_types import EventType
from cdcrep_connectors.mysql.expansion import expand
from cdcrep_connectors.mysql.gtid_sets import GtidSet
from cdcrep_connectors.mysql.mariadb_gtid import MariadbGtidState
from cdcrep_connectors.mysql.query_event import read_query
from cdcrep_connectors.mysql.transactions import (
    Ending,
    commit_times,
    find_transactions,
    gtid_runs,
    last_gtids,
    precise_commit_time,
)
from tests.properties.binlog_events import event, events
from tests.unit.mysql.captures import SERVERS
from tests.unit.mysql.captures import events as captured

A, B = UUID(int=1), UUID(int=2)
XID = event(EventType.XID, bytes(8))


def gtid(number: int, uuid: UUID = A) -> bytes:
    return event(EventType.GTID, b"\0" + uuid.bytes + struct.pack("<q", number))


def mariadb_gtid(number: int, *, standalone: bool = False, domain: int = 0, server: int = 1) -> bytes:
    return event(EventType.MARIADB_GTID, struct.pack("<QIB6x", number, domain, standalone), server=server)


def query(statement: bytes, *, variables: bytes = b"") -> bytes:
    fixed = struct.pack("<IIBHH", 1, 0, 1, 0, len(variables))
    return event(EventType.QUERY, fixed + variables + b"s\0" + statement)


def test_transactions_of_mysql_end_in_every_way() -> None:
    found = find_transactions(
        events(
            [
                *(gtid(1), query(b"BEGIN", variables=b"\1" + bytes(8)), XID),
                *(gtid(2), query(b"CREATE TABLE t (a INT)")),
                *(gtid(3), query(b"BEGIN"), query(b"SAVEPOINT s"), query(b"COMMIT")),
                *(gtid(4), query(b"XA START X'61',X'',1"), query(b"XA END X'61',X'',1")),
                event(EventType.XA_PREPARE, bytes(13)),
                *(gtid(5), query(b"XA COMMIT X'61',X'',1")),
                event(EventType.ROTATE, bytes(8) + b"next"),
                *(gtid(6), query(b"BEGIN"), query(b"ROLLBACK")),
                *(gtid(7), query(b"BEGIN")),
            ]
        ),
        mariadb=False,
    )

    assert found.first.tolist() == [0, 3, 5, 9, 13, 16]
    assert found.last.tolist() == [2, 4, 8, 12, 14, 18]
    expected = [Ending.COMMIT, Ending.STATEMENT, Ending.COMMIT, Ending.PREPARED, Ending.STATEMENT, Ending.ROLLBACK]
    assert found.endings.tolist() == expected
    assert found.rest == 19


def test_transactions_of_mariadb_end_in_every_way() -> None:
    found = find_transactions(
        events(
            [
                *(mariadb_gtid(1), XID),
                *(mariadb_gtid(2, standalone=True), query(b"BEGIN NOT ATOMIC END")),
                *(mariadb_gtid(3), query(b"INSERT INTO t VALUES (1)"), query(b"COMMIT")),
                mariadb_gtid(4),
            ]
        ),
        mariadb=True,
    )

    assert found.last.tolist() == [1, 3, 6]
    assert found.endings.tolist() == [Ending.COMMIT, Ending.STATEMENT, Ending.COMMIT]
    assert found.rest == 7


def test_nothing_has_no_transactions() -> None:
    found = find_transactions(events([]), mariadb=False)

    assert (len(found), found.rest) == (0, 0)


def test_a_transaction_inside_another_is_refused() -> None:
    with pytest.raises(DataError, match="began a transaction before the end"):
        find_transactions(events([gtid(1), query(b"BEGIN"), gtid(2), query(b"BEGIN"), XID]), mariadb=False)


def test_a_query_that_is_too_short_is_refused() -> None:
    with pytest.raises(DataError, match="QUERY event of the source is too short"):
        find_transactions(events([gtid(1), event(EventType.QUERY, bytes(11) + b"\xff\xff\0")]), mariadb=False)


def test_consecutive_numbers_become_runs() -> None:
    found = events([gtid(1), gtid(2), gtid(5), gtid(6, B), gtid(7, B), gtid(3)])

    runs = [(origin.uuid, first, last) for origin, first, last in gtid_runs(found, np.arange(6))]

    assert runs == [(A, 1, 2), (A, 5, 5), (B, 6, 7), (A, 3, 3)]
    assert list(gtid_runs(events([]), np.arange(0))) == []


def test_the_last_transaction_of_each_domain_counts() -> None:
    found = events([mariadb_gtid(1), mariadb_gtid(9, domain=2, server=7), mariadb_gtid(2, server=3)])

    assert str(MariadbGtidState.of(last_gtids(found, np.arange(3)))) == "0-3-2,2-7-9"


@pytest.mark.parametrize("server", SERVERS)
def test_all_events_of_a_real_log_belong_to_whole_transactions(server: str) -> None:
    plain, _ = expand(captured(server))

    found = find_transactions(plain, mariadb=server != "mysql-9.7")

    assert found.rest == len(plain)
    assert len(found) >= 50
    inside = sum((found.last - found.first + 1).tolist())
    outside = {EventType.FORMAT_DESCRIPTION, EventType.PREVIOUS_GTIDS, EventType.GTID_LIST}
    outside |= {EventType.BINLOG_CHECKPOINT, EventType.ROTATE, EventType.STOP}
    assert len(plain) - inside == sum(kind in outside for kind in plain.types.tolist())
    assert found.endings.tolist().count(Ending.PREPARED) == 2
    alone = [read_query(plain.content(i)).text for i in found.last[found.endings == Ending.STATEMENT].tolist()]
    assert [text.split()[0] for text in alone if text.startswith("XA")] == ["XA", "XA"]
    assert (commit_times(plain, found) > 1_700_000_000).all()


def test_a_real_log_of_mysql_continues_its_previous_gtids() -> None:
    plain, _ = expand(captured("mysql-9.7"))
    found = find_transactions(plain, mariadb=False)
    (index,) = [i for i, kind in enumerate(plain.types.tolist()) if kind == EventType.PREVIOUS_GTIDS]
    before = GtidSet.decode(plain.content(index))

    after = before.add_runs(gtid_runs(plain, found.first))

    assert [len(some) for some in after.intervals.values()] == [1] * len(after.intervals)
    assert not after.subtract(before).intersect(before)
    precise = precise_commit_time(plain, int(found.first[0]))
    assert precise is not None
    assert abs(precise - commit_times(plain, found)[0]) < 60
