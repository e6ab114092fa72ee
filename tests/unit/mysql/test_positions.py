"""Positions survive being written and read, know what contains what, and refuse what they did not write."""

from __future__ import annotations

import pytest

from cdcrep.errors import DivergedError
from cdcrep.position import Position
from cdcrep_connectors.mysql.gtid_sets import GtidSet
from cdcrep_connectors.mysql.mariadb_gtid import MariadbGtidState
from cdcrep_connectors.mysql.position import Place, Progress, parse_position
from cdcrep_connectors.mysql.prepared import Prepared, PreparedTransactions
from cdcrep_connectors.mysql.replication import AfterGtidList, AfterGtids, AtFile

UUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"


def mysql(last: int, offset: int = 4) -> Progress:
    return Progress(GtidSet.parse(f"{UUID}:1-{last}"), "binlog.000002", offset)


def _still(server: str, mariadb: bool, reached: Progress) -> Place:
    return Place(server, mariadb, reached, reached)


@pytest.mark.parametrize(
    "place",
    [
        Place(UUID, False, mysql(5), mysql(5)),
        Place(UUID, False, mysql(5), mysql(3)),
        Place(UUID, False, mysql(5), mysql(3), 17, 1_700_000_000),
        Place(UUID, False, mysql(5), mysql(5), 0, 1_700_000_000),
        _still("1", True, Progress(MariadbGtidState.parse("0-1-100,7-2-3"), "a.b.000001", 400)),
        _still(UUID, False, Progress(None, "bin log/x".replace("/", "-") + ".999999", 4)),
    ],
)
def test_a_position_is_read_as_it_was_written(place: Place) -> None:
    assert parse_position(place.position()) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pg/1/1/0/0",
        "mysql/x",
        f"mysql/{UUID}/nonsense/b.1:4",
        f"mysql/{UUID}//b:4",
        f"mysql/{UUID}//b.1:4/nulled=x",
    ],
)
def test_what_is_no_position_of_such_a_server_is_refused(text: str) -> None:
    with pytest.raises(DivergedError):
        parse_position(Position(text))


def test_a_fork_of_mariadbs_history_contains_nothing_of_the_other() -> None:
    ours, theirs = (Progress(MariadbGtidState.parse(text), "b.1", 4) for text in ("0-1-5,1-1-2", "0-2-5,1-1-2"))

    assert not theirs.contains(ours)
    assert ours.contains(Progress(MariadbGtidState.parse("0-1-5"), "b.1", 4))


def test_files_are_ordered_by_their_numbers() -> None:
    early, late = Progress(None, "b.999999", 9000), Progress(None, "b.1000000", 4)

    assert late.contains(early)
    assert not early.contains(late)


def test_reading_begins_where_the_position_says() -> None:
    gtids = GtidSet.parse(f"{UUID}:1-5")

    assert mysql(5).starting_point() == AfterGtids(gtids.encode())
    assert Progress(MariadbGtidState.parse("0-1-5"), "b.1", 4).starting_point() == AfterGtidList("0-1-5")
    assert Progress(None, "b.1", 40).starting_point() == AtFile("b.1", 40)


def test_reading_begins_before_the_oldest_prepared_transaction() -> None:
    prepared = PreparedTransactions(0)
    prepared.add(b"\1\0\0\0\1\0a", Prepared(mysql(3), prepared.hold()))
    prepared.add(b"\1\0\0\0\1\0b", Prepared(mysql(4), prepared.hold()))

    assert prepared.begin(mysql(6)) == mysql(3)
    assert prepared.finish("XA COMMIT X'61',X'',1") is not None
    assert prepared.begin(mysql(6)) == mysql(4)
    assert prepared.finish("XA ROLLBACK X'62',X'',1") is None
    assert prepared.begin(mysql(6)) == mysql(6)


def test_the_commit_of_an_unknown_prepared_transaction_stops() -> None:
    with pytest.raises(DivergedError):
        PreparedTransactions(0).finish("XA COMMIT X'61',X'',1")
