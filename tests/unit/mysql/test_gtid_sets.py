"""MySQL's GTID sets and MariaDB's GTID positions: text, bytes, and what contains what."""

from __future__ import annotations

from uuid import UUID

import pytest

from cdcrep.errors import DataError
from cdcrep_connectors.mysql.gtid_sets import Gtid, GtidSet, Origin
from cdcrep_connectors.mysql.mariadb_gtid import MariadbGtid, MariadbGtidState

A = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
B = "ffffffff-0000-11e1-9e33-c80aa9429562"


def test_text_is_put_into_the_form_that_the_server_gives_it() -> None:
    text = f" {B.upper()}:5 ,\n{A}:7-9:1-3:3-5:10:tag:4:Tag:1-2,{A.replace('-', '')}:20"

    assert str(GtidSet.parse(text)) == f"{A}:1-5:7-10:20:tag:1-2:4,{B}:5"


def test_nothing_is_a_set() -> None:
    assert GtidSet.parse("") == GtidSet()
    assert not GtidSet.parse(" , ")
    assert str(GtidSet()) == ""
    assert GtidSet.decode(bytes(8)) == GtidSet()


@pytest.mark.parametrize(
    "text", ["x", A, f"{A}:", f"{A}:0", f"{A}:5-4", f"{A}:1-9223372036854775807", f"{A}:TAG!:1", f"{A[:-1]}:1", "a:b"]
)
def test_what_is_no_set_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="GTID set"):
        GtidSet.parse(text)


def test_a_set_without_tags_is_encoded_as_old_servers_read_it() -> None:
    encoded = GtidSet.parse(f"{A}:1-5:9").encode()

    expected = "0100000000000000" + A.replace("-", "") + "0200000000000000"
    expected += "01000000000000000600000000000000" + "09000000000000000a00000000000000"
    assert encoded.hex() == expected


def test_a_set_with_tags_is_encoded_with_the_format_in_both_outer_bytes() -> None:
    encoded = GtidSet.parse(f"{A}:1,{A}:tag:2").encode()

    assert encoded[:8].hex() == "0102000000000001"
    assert GtidSet.decode(encoded) == GtidSet.parse(f"{A}:1:tag:2")


def test_a_transaction_is_in_a_set_by_server_tag_and_number() -> None:
    held = GtidSet.parse(f"{A}:2-4:tag:9")

    assert [n for n in range(1, 11) if Gtid(Origin(UUID(A)), n) in held] == [2, 3, 4]
    assert Gtid(Origin(UUID(A), "tag"), 9) in held
    assert Gtid(Origin(UUID(B)), 2) not in held


def test_containment_addition_and_subtraction() -> None:
    large, small = GtidSet.parse(f"{A}:1-10,{B}:1"), GtidSet.parse(f"{A}:3-5:8")

    assert large.contains(small)
    assert not small.contains(large)
    assert str(large.subtract(small)) == f"{A}:1-2:6-7:9-10,{B}:1"
    assert large.subtract(small).add(small) == large
    assert large.intersect(small) == small
    assert small.add_runs([(Origin(UUID(A)), 6, 7)]) == GtidSet.parse(f"{A}:3-8")


def test_a_position_of_mariadb_has_one_gtid_per_domain() -> None:
    state = MariadbGtidState.parse("1-2-5, 0-1-100")

    assert str(state) == "0-1-100,1-2-5"
    assert MariadbGtid(0, 9, 100) in state
    assert MariadbGtid(0, 1, 101) not in state
    assert MariadbGtid(7, 1, 1) not in state
    assert str(state.add([MariadbGtid(0, 2, 101), MariadbGtid(3, 1, 1)])) == "0-2-101,1-2-5,3-1-1"
    assert state.contains(MariadbGtidState.parse("0-1-99"))
    assert not state.contains(MariadbGtidState.parse("2-1-1"))
    assert MariadbGtidState.parse("0-1-50").behind(state) == [0, 1]
    assert str(MariadbGtidState.parse("")) == ""


@pytest.mark.parametrize(
    "text", ["0-1", "0-1-x", "0-1-1,0-2-2", "4294967296-1-1", "0-1-18446744073709551616", "0-1-1,"]
)
def test_what_is_no_position_of_mariadb_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="MariaDB"):
        MariadbGtidState.parse(text)
