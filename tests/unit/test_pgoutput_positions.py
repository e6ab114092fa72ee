"""Positions and LSNs are written and read alike; what is no position is refused."""

from __future__ import annotations

import pytest

from cdcrep.errors import DivergedError
from cdcrep.position import Position
from cdcrep_connectors.postgres.continuity import switch_points
from cdcrep_connectors.postgres.lsn import Place, format_lsn, format_position, parse_lsn, parse_position


@pytest.mark.parametrize("lsn", [0, 1, 0xFFFFFFFF, 1 << 32, 0x16B374D848, (1 << 64) - 1])
def test_lsns_and_positions_are_read_as_written(lsn: int) -> None:
    written = format_position(7_711_243_846_430_517_749, 3, lsn)

    assert parse_lsn(format_lsn(lsn)) == lsn
    assert parse_position(written) == Place(7_711_243_846_430_517_749, 3, lsn)


def test_an_lsn_looks_as_postgresql_writes_it() -> None:
    assert format_lsn(0x16B374D848) == "16/B374D848"
    assert format_position(7, 1, 255) == "pg/7/1/0/FF"


@pytest.mark.parametrize(
    "text",
    ["", "pg/7/1", "pg/7/1/0/", "pg/7/1/0/ff", "pg/-7/1/0/1", "mysql/7/1/0/1", "pg/7/1/0/1\n", "pg/\u0667/1/0/1"],
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(DivergedError):
        parse_position(Position(text))


@pytest.mark.parametrize("text", ["", "1", "1/", "x/1", "123456789/1"])
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an LSN"):
        parse_lsn(text)


def test_a_history_file_tells_where_each_timeline_was_left() -> None:
    history = "# comment\n1\t0/3000000\tno recovery target specified\n\n2\tA/BC\tbefore 2000-01-01 # why\n"

    assert switch_points(history) == {1: 0x3000000, 2: (0xA << 32) + 0xBC}
