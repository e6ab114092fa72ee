"""What a position remembers of partitions is enough to tell which of them is gone or has another file."""

from __future__ import annotations

import pytest

from cdcrep.connector import Copied
from cdcrep.errors import DivergedError
from cdcrep.position import Position
from cdcrep.table import TableId
from cdcrep_connectors.postgres.lsn import format_position, parse_position, remembering
from cdcrep_connectors.postgres.memory import known_by_copy, known_by_memory, no_memory, read_memory, write_memory
from cdcrep_connectors.postgres.storage import Look, Part

ROOT = 100
HORIZON = 50


def part(oid: int, *, file_number: int = 0, written: int = 10, attached: int = 10) -> Part:
    return Part(oid, TableId("s", f"p{oid}"), "r", "p", file_number or oid, written, attached, attached, 0)


def parts(*listed: Part) -> dict[int, Part]:
    return {each.oid: each for each in listed}


def remembered(*listed: Part) -> str:
    table = TableId("s", "t")
    return write_memory(Look(HORIZON, 1000, {table: ROOT}, {table: parts(*listed)}))


def test_a_position_carries_a_memory() -> None:
    position = format_position(7, 1, 255)
    memory = remembered(part(1), part(2))

    assert parse_position(remembering(position, memory)).memory == memory
    assert parse_position(remembering(position, memory)).lsn == 255
    assert read_memory(memory).lsn == 1000
    assert remembering(position, "") == position


def test_partitions_that_stayed_as_they_were_are_known() -> None:
    memory = read_memory(remembered(part(1), part(2)))

    known = known_by_memory(memory, ROOT, parts(part(1), part(2), part(3, attached=HORIZON)))

    assert known.partitions == parts(part(1), part(2))
    assert (known.missing, known.horizon) == (False, HORIZON)


def test_a_partition_with_another_file_is_told_from_the_others() -> None:
    memory = read_memory(remembered(part(1), part(2), part(3, file_number=4)))

    now = parts(part(1), part(2, file_number=9, written=60), part(3, file_number=4, written=60))
    known = known_by_memory(memory, ROOT, now)

    assert known.partitions == {1: part(1), 2: None, 3: None}
    assert not known.missing


def test_a_partition_that_is_gone_is_missing() -> None:
    memory = read_memory(remembered(part(1), part(2)))

    assert known_by_memory(memory, ROOT, parts(part(1))).missing
    assert known_by_memory(memory, ROOT, parts(part(1), part(2, attached=60))).missing
    assert known_by_memory(memory, ROOT, {}).missing


def test_a_copy_knows_the_files_that_it_was_made_of() -> None:
    copied = Copied(
        Position("pg/7/1/0/1"), True, f"xmin {HORIZON}", frozenset(["1.1 pages 0-", "2.2 pages 0-9", "4.4 x"])
    )

    known = known_by_copy(copied, parts(part(1), part(2, file_number=9), part(3), part(4, attached=60)))

    assert known is not None
    assert known.partitions == {1: part(1), 2: None}
    assert known_by_copy(Copied(Position("pg/7/1/0/1")), {}) is None


@pytest.mark.parametrize("text", ["", "1", "x,1", "1,2,3", "1,2,3.4", "1,2,3.4.5.6"])
def test_a_damaged_memory_is_refused(text: str) -> None:
    with pytest.raises(DivergedError, match="memory"):
        read_memory(text)


def test_without_a_look_a_memory_says_where_the_stream_began() -> None:
    assert read_memory(no_memory(255)).lsn == 255
    assert read_memory(no_memory(255)).horizon is None
