"""Events without rows say what the manual says they say."""

from __future__ import annotations

import struct
from uuid import UUID

import pytest

from cdcrep.errors import DataError
from cdcrep_connectors.mysql import control_events, gtid_events
from cdcrep_connectors.mysql.control_events import Heartbeat, Rotate
from cdcrep_connectors.mysql.event_types import EventType
from cdcrep_connectors.mysql.expansion import expand
from cdcrep_connectors.mysql.gtid_events import MariadbGtidFlag
from cdcrep_connectors.mysql.gtid_sets import GtidSet
from cdcrep_connectors.mysql.mariadb_gtid import MariadbGtid, MariadbGtidState
from cdcrep_connectors.mysql.query_event import read_query
from cdcrep_connectors.mysql.serialization import write_number, write_signed
from tests.properties.binlog_events import packed, packed_bytes
from tests.unit.mysql.captures import events

SERVER = UUID("3e11fa47-71ca-11e1-9e33-c80aa9429562")


def contents(server: str, kind: EventType) -> list[bytes]:
    plain, _ = expand(events(server))
    return [plain.content(i) for i, found in enumerate(plain.types.tolist()) if found == kind]


def test_a_rotate_names_the_next_file() -> None:
    content = struct.pack("<Q", 4) + b"binlog.000007"

    assert control_events.read_rotate(content) == Rotate("binlog.000007", 4)


def test_a_heartbeat_says_how_far_the_server_is() -> None:
    second = b"\1" + packed_bytes(b"binlog.000007") + b"\2" + packed_bytes(packed(1 << 33)) + b"\0"

    assert control_events.read_heartbeat(b"binlog.000007", 900) == Heartbeat("binlog.000007", 900)
    assert control_events.read_heartbeat_v2(second) == Heartbeat("binlog.000007", 1 << 33)


def test_gtid_events_of_mysql_name_transactions_and_when_they_committed() -> None:
    found = [gtid_events.read_gtid(content, anonymous=False) for content in contents("mysql-9.7", EventType.GTID)]

    numbers = [event.gtid.number for event in found if event.gtid is not None]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert all(event.commit_time is not None and event.commit_time > 1_700_000_000_000_000 for event in found)
    assert all(event.transaction_length is not None and event.transaction_length > 100 for event in found)


def test_an_anonymous_transaction_has_no_gtid() -> None:
    (content, *_) = contents("mysql-9.7", EventType.GTID)

    assert gtid_events.read_gtid(content, anonymous=True).gtid is None


def test_a_tagged_gtid_of_a_real_server_is_read() -> None:
    (content,) = contents("mysql-9.7", EventType.GTID_TAGGED)

    event = gtid_events.read_tagged_gtid(content)

    assert event.gtid is not None
    assert (event.gtid.origin.tag, event.gtid.number >= 1) == ("tagged", True)
    plain = gtid_events.read_gtid(contents("mysql-9.7", EventType.GTID)[0], anonymous=False).gtid
    assert plain is not None
    assert event.gtid.origin.uuid == plain.origin.uuid
    assert event.commit_time is not None
    assert event.commit_time > 1_700_000_000_000_000


def tagged(extra: bytes = b"", last_needed: int = 0) -> bytes:
    uuid = b"".join(write_number(byte) for byte in SERVER.bytes)
    fields = (
        write_number(1) + uuid + write_number(2) + write_signed(7) + write_number(3) + write_number(1) + b"t" + extra
    )
    head = write_number(1)
    length = len(head) + 1 + 1 + len(fields)
    return head + write_number(length) + write_number(last_needed) + fields


def test_a_field_of_a_later_version_is_passed_over_only_where_it_may_be() -> None:
    event = gtid_events.read_tagged_gtid(tagged(write_number(40) + b"anything"))

    assert str(event.gtid) == f"{SERVER}:t:7"
    with pytest.raises(DataError, match="must not be passed over"):
        gtid_events.read_tagged_gtid(tagged(write_number(40) + b"anything", last_needed=41))


def test_previous_gtids_of_a_real_server_come_before_those_of_its_file() -> None:
    (content,) = contents("mysql-9.7", EventType.PREVIOUS_GTIDS)
    first = gtid_events.read_gtid(contents("mysql-9.7", EventType.GTID)[0], anonymous=False).gtid

    previous = gtid_events.read_previous_gtids(content)

    assert first is not None
    assert first not in previous
    assert previous.contains(GtidSet.parse(f"{first.origin}:1-{first.number - 1}"))
    assert previous.encode() == content


@pytest.mark.parametrize("server", ["mariadb-11.8", "mariadb-10.11"])
def test_gtid_events_of_mariadb_name_transactions_per_domain(server: str) -> None:
    found = [gtid_events.read_mariadb_gtid(content, 1) for content in contents(server, EventType.MARIADB_GTID)]
    (before,) = [gtid_events.read_gtid_list(content) for content in contents(server, EventType.GTID_LIST)]

    assert {event.gtid.domain for event in found} == {0, 7}
    first = next(event.gtid for event in found if event.gtid.domain == 0)
    assert before.last[0].sequence == first.sequence - 1
    assert [event.flags & MariadbGtidFlag.STANDALONE != 0 for event in found].count(True) >= 2
    xids = [event.xid for event in found if event.xid is not None]
    prepared = [control_events.read_xa_prepare(content).xid for content in contents(server, EventType.XA_PREPARE)]
    # Prepared and committed, prepared and rolled back.
    assert xids == [prepared[0], prepared[0], prepared[1], prepared[1]]


def test_xa_names_are_read() -> None:
    prepared = [control_events.read_xa_prepare(content) for content in contents("mysql-9.7", EventType.XA_PREPARE)]

    assert [event.xid[6:] for event in prepared] == [b"kept", b"dropped"]
    assert not any(event.one_phase for event in prepared)


@pytest.mark.parametrize("server", ["mysql-9.7", "mariadb-11.8"])
def test_statements_come_with_their_sessions_settings(server: str) -> None:
    found = [read_query(content) for content in contents(server, EventType.QUERY)]
    (altered,) = [query for query in found if query.text.startswith("ALTER TABLE images")]
    (inserted,) = [query for query in found if "VALUES (@v)" in query.text]

    assert altered.schema == "golden"
    assert altered.charset is not None
    assert altered.sql_mode is not None
    assert altered.error == 0
    assert inserted.text.startswith("INSERT INTO statements")


def test_compressed_statements_are_read() -> None:
    plain, _ = expand(events("mariadb-11.8"))
    texts = [
        read_query(plain.content(i)).text for i, kind in enumerate(plain.types.tolist()) if kind == EventType.QUERY
    ]

    assert any(text.startswith("CREATE TABLE squeezed_too") for text in texts)


def test_the_last_writer_of_a_domain_counts() -> None:
    entries = [(0, 5, 9), (0, 1, 10), (1, 1, 1)]
    content = struct.pack("<I", 3) + b"".join(struct.pack("<IIQ", *entry) for entry in entries)

    expected = MariadbGtidState.of([MariadbGtid(0, 1, 10), MariadbGtid(1, 1, 1)])
    assert gtid_events.read_gtid_list(content) == expected
