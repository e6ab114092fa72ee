"""pgoutput's other messages: relations, truncates, transactions, and those that carry nothing."""

from __future__ import annotations

import pytest

from cdcrep.errors import DataError
from cdcrep.table import Table, TableId
from cdcrep_connectors.postgres.pgoutput import Decoder, Messages, boundaries
from cdcrep_connectors.postgres.relation import Relation, read_relation, read_truncate
from tests.properties.pgoutput_messages import (
    begin,
    commit,
    insert,
    logical_message,
    make_relation,
    make_table,
    messages,
    origin,
    relation_message,
    truncate,
    type_message,
)

ONE, TWO = make_relation(oid=1), make_relation(oid=2)


def test_relations_are_read_as_they_were_written() -> None:
    for relation in (ONE, make_relation([], [], identity="f"), make_relation(["ä%s", 'q"'], ['q"'], identity="i")):
        assert read_relation(relation_message(relation)) == relation


def test_an_empty_schema_name_is_pg_catalog() -> None:
    assert read_relation(relation_message(ONE).replace(b"public", b"")).schema == "pg_catalog"


@pytest.mark.parametrize(
    "message",
    [
        relation_message(ONE)[:-1],
        relation_message(ONE) + b"\0",
        relation_message(ONE)[:8],
        relation_message(ONE).replace(b"public", b"publi\xff"),
        relation_message(ONE).replace(b"v", b"id"),
        relation_message(ONE).replace(b"t1\0d", b"t1\0z"),
        origin()[:-1],
        type_message() + b"x",
        logical_message()[:-1],
        b"",
        b"Z",
        begin(1)[:-1],
        commit(1, 2) + b"x",
    ],
)
def test_a_damaged_message_is_a_data_error(message: bytes) -> None:
    def decode() -> None:
        taken = messages([message])
        boundaries(taken, None)
        Decoder(make_table).decode(taken)

    with pytest.raises(DataError):
        decode()


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (truncate(1, 2)[:-1], "length that it announces"),
        (truncate(1, 2) + b"\0", "length that it announces"),
        (truncate(1, options=4), "unknown options"),
    ],
)
def test_a_damaged_truncate_is_a_data_error(message: bytes, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        Decoder(make_table).decode(messages([relation_message(ONE), relation_message(TWO), message]))


def test_a_message_of_unknown_kind_is_never_skipped() -> None:
    with pytest.raises(DataError, match="unknown kind 0x53"):
        messages([begin(1), b"S\0\0\0\1", commit(1, 2)])


def test_a_row_of_an_undescribed_relation_is_refused() -> None:
    with pytest.raises(DataError, match="oid 77 before describing it"):
        Decoder(make_table).decode(messages([insert(77, ["1", "a"])]))


def test_messages_without_data_are_read_and_left_out() -> None:
    contents = [origin(), type_message(), logical_message(), relation_message(ONE)]

    assert Decoder(make_table).decode(messages(contents)) == ()


def test_a_truncate_of_several_tables_empties_each() -> None:
    contents = [
        relation_message(ONE),
        relation_message(TWO),
        insert(1, ["1", "gone"]),
        truncate(1, 2),
        insert(2, ["1", "kept"]),
    ]

    first, second = Decoder(make_table).decode(messages(contents))

    assert read_truncate(truncate(1, 2)) == (1, 2)
    assert (first.table.name, first.truncated, len(first)) == ("t1", True, 0)
    assert (second.table.name, second.truncated, len(second)) == ("t2", True, 1)


def test_a_changed_shape_cuts_a_tables_changes() -> None:
    wider = make_relation(["id", "v", "w"], oid=1)

    before, after = Decoder(make_table).decode(
        messages([relation_message(ONE), insert(1, ["1", "a"]), relation_message(wider), insert(1, ["2", "b", "c"])])
    )

    assert before.new.to_pylist() == [{"id": "1", "v": "a"}]
    assert after.new.to_pylist() == [{"id": "2", "v": "b", "w": "c"}]


def test_a_repeated_relation_asks_the_catalogue_again_and_cuts_nothing() -> None:
    asked: list[Relation] = []

    def shape(relation: Relation) -> Table:
        asked.append(relation)
        return make_table(relation)

    contents = [relation_message(ONE), insert(1, ["1", "a"]), relation_message(ONE), insert(1, ["2", "b"])]

    (changes,) = Decoder(shape).decode(messages(contents))

    assert len(changes) == 2
    assert asked == [ONE, ONE]


def test_a_relation_is_remembered_from_one_call_to_the_next() -> None:
    decoder = Decoder(make_table)
    decoder.learn(messages([relation_message(ONE)]))

    (changes,) = decoder.decode(messages([insert(1, ["1", "a"])]))

    assert changes.new.to_pylist() == [{"id": "1", "v": "a"}]


def test_settled_tables_leave_out_what_their_copy_contains() -> None:
    contents = [relation_message(ONE), insert(1, ["1", "a"]), truncate(1), insert(1, ["2", "b"]), insert(1, ["3", "c"])]
    taken = messages(contents)
    lsns = taken.start.astype("uint64") * 0 + [10, 10, 10, 10, 20]
    settled = {TableId("public", "t1"): 15}

    (changes,) = Decoder(make_table).decode(
        Messages(taken.buffer, taken.start, taken.end, taken.classes, lsns.astype("uint64")), settled
    )

    assert not changes.truncated
    assert changes.new.to_pylist() == [{"id": "3", "v": "c"}]


def test_boundaries_name_the_commits_end_and_time() -> None:
    found = boundaries(messages([commit(5, 9, 1_700_000_000.25), begin(10), commit(10, 12), begin(13)]), 5)

    assert found.end_lsn.tolist() == [9, 12]
    assert found.final_lsn.tolist() == [10, 13]
    assert found.commit_time[0] == 1_700_000_000.25


@pytest.mark.parametrize(
    ("contents", "open_lsn"),
    [
        ([begin(1), begin(2)], None),
        ([commit(1, 2)], None),
        ([begin(2)], 1),
        ([begin(1), commit(2, 3)], None),
        ([insert(1, ["1"])], None),
        ([begin(1), commit(1, 2), truncate(1)], None),
    ],
)
def test_transactions_out_of_turn_are_refused(contents: list[bytes], open_lsn: int | None) -> None:
    with pytest.raises(DataError):
        boundaries(messages(contents), open_lsn)
