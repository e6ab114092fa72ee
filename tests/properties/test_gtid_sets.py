"""GTID sets behave like sets of transactions, and come back from text and bytes as they were."""

from __future__ import annotations

import contextlib
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from cdcrep.errors import DataError
from cdcrep_connectors.mysql.fields import FieldReader
from cdcrep_connectors.mysql.gtid_sets import GtidSet, Origin
from cdcrep_connectors.mysql.serialization import read_number, read_signed, write_number, write_signed

origins = st.builds(Origin, st.sampled_from([UUID(int=1), UUID(int=2**127)]), st.sampled_from(["", "a", "b_9"]))
transactions = st.sets(st.tuples(origins, st.integers(1, 30)), max_size=40)


def make(members: set[tuple[Origin, int]]) -> GtidSet:
    found: dict[Origin, list[tuple[int, int]]] = {}
    for origin, number in members:
        found.setdefault(origin, []).append((number, number))
    return GtidSet.of(found)


def members_of(held: GtidSet) -> set[tuple[Origin, int]]:
    return {
        (origin, number)
        for origin, some in held.intervals.items()
        for first, last in some
        for number in range(first, last + 1)
    }


@given(transactions)
def test_text_and_bytes_come_back(members: set[tuple[Origin, int]]) -> None:
    held = make(members)

    assert members_of(held) == members
    assert GtidSet.parse(str(held)) == held
    assert GtidSet.decode(held.encode()) == held
    assert bool(held) is bool(members)


@given(transactions, transactions)
def test_operations_are_those_of_sets(some: set[tuple[Origin, int]], others: set[tuple[Origin, int]]) -> None:
    mine, theirs = make(some), make(others)

    assert members_of(mine.add(theirs)) == some | others
    assert members_of(mine.subtract(theirs)) == some - others
    assert members_of(mine.intersect(theirs)) == some & others
    assert mine.contains(theirs) is (some >= others)


@given(st.binary(max_size=80))
def test_bytes_that_are_no_set_are_refused(content: bytes) -> None:
    with contextlib.suppress(DataError):
        held = GtidSet.decode(content)
        assert GtidSet.decode(held.encode()) == held


@given(st.integers(0, 2**64 - 1))
def test_unsigned_numbers_of_tagged_events_come_back(number: int) -> None:
    assert read_number(FieldReader(write_number(number), "test")) == number


@given(st.integers(-(2**63), 2**63 - 1))
def test_signed_numbers_of_tagged_events_come_back(number: int) -> None:
    assert read_signed(FieldReader(write_signed(number), "test")) == number
