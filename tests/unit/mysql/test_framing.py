"""Events are found, verified and refused: lengths, checksums, unknown types, incidents."""

from __future__ import annotations

import pytest

from cdcrep.columns import padded
from cdcrep.errors import DataError
from cdcrep_connectors.mysql.event_types import EventFlag, EventType
from cdcrep_connectors.mysql.framing import Framing, cut
from tests.properties.binlog_events import event, events, format_description

XID = event(EventType.XID, bytes(8))
ROTATE = bytes(8) + b"binlog.000002"


def test_events_behind_each_other_are_cut_at_their_lengths() -> None:
    content = XID + event(EventType.STOP, b"") + XID[:-1]

    start, end, after = cut(padded(content), 0, len(content))

    assert start.tolist() == [0, len(XID)]
    assert end.tolist() == [len(XID), after]
    assert content[after:] == XID[:-1]


def test_a_length_below_the_header_is_refused() -> None:
    content = XID[:9] + b"\x12\0\0\0" + XID[13:]

    with pytest.raises(DataError, match="an event of 18 bytes"):
        cut(padded(content), 0, len(content))


def test_a_length_that_is_not_the_slices_is_refused() -> None:
    content = XID + bytes(1)

    start, end, _ = cut(padded(content), 0, len(XID))

    with pytest.raises(DataError, match="the length that it announces"):
        Framing(checksums=True).verify(padded(content), start, end + 1)


def test_every_checksum_is_verified() -> None:
    broken = XID[:20] + b"\1" + XID[21:]

    assert len(events([XID, XID])) == 2
    with pytest.raises(DataError, match="the checksum of an event") as caught:
        events([XID, broken, XID])
    assert "mysqlbinlog" in str(caught.value.hint)


def test_contents_end_in_front_of_their_checksums() -> None:
    found = events([event(EventType.ANNOTATE_ROWS, b"statement")])

    assert found.content(0) == b"statement"


def test_a_format_description_says_whether_checksums_follow() -> None:
    plain = event(EventType.XID, bytes(8), checksum=False)

    found = events([XID, format_description(checksum=False), plain, format_description(), XID])

    assert [len(found.content(i)) for i in (0, 2, 4)] == [8, 8, 8]


def test_the_flag_of_a_file_in_use_is_not_part_of_the_checksum() -> None:
    assert len(events([format_description(in_use=True)])) == 1


def test_a_damaged_format_description_is_refused() -> None:
    content = bytearray(format_description())
    content[30] ^= 1

    with pytest.raises(DataError, match="the checksum of a FORMAT_DESCRIPTION"):
        events([bytes(content)])


@pytest.mark.parametrize("checksum", [True, False])
def test_a_rotate_that_is_made_up_before_the_format_is_known_has_a_checksum_or_not(checksum: bool) -> None:
    rotate = event(EventType.ROTATE, ROTATE, checksum=checksum, flags=EventFlag.ARTIFICIAL)

    found = events([rotate, format_description(), XID], checksums=False)

    assert found.content(0) == ROTATE


def test_an_event_of_unknown_type_is_refused_unless_it_may_be_passed_over() -> None:
    assert len(events([event(99, b"?", flags=EventFlag.IGNORABLE)])) == 1
    with pytest.raises(DataError, match="an event of unknown type 99 that must not be passed over"):
        events([XID, event(99, b"?")])


def test_an_incident_stops() -> None:
    with pytest.raises(DataError, match="INCIDENT") as caught:
        events([event(EventType.INCIDENT, b"\1\0\0")])

    assert caught.value.hint is not None


def test_an_event_without_room_for_its_checksum_is_refused() -> None:
    with pytest.raises(DataError, match="without a checksum"):
        events([event(EventType.STOP, b"", checksum=False)])
