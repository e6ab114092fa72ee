"""pgoutput's row messages become columns: values, NULLs, unchanged values and old rows."""

from __future__ import annotations

import pytest

from cdcrep.changes import Changes
from cdcrep.errors import DataError
from cdcrep_connectors.postgres.pgoutput import Decoder
from cdcrep_connectors.postgres.relation import Relation
from tests.properties.pgoutput_messages import (
    Row,
    delete,
    insert,
    make_relation,
    make_table,
    messages,
    relation_message,
    row_data,
    truncate,
    update,
)

KEYED = make_relation(["id", "v", "w"])
FULL = make_relation(["id", "v", "w"], identity="f")
OID = KEYED.oid


def decode(relation: Relation, *contents: bytes, key: tuple[str, ...] | None = None) -> Changes:
    decoder = Decoder(lambda described: make_table(described, key))
    (changes,) = decoder.decode(messages([relation_message(relation), *contents]))
    return changes


def rows(changes: Changes) -> list[Row]:
    return [tuple(row.values()) for row in changes.new.to_pylist()]


def old_rows(changes: Changes) -> list[Row | None]:
    if changes.old is None or changes.old_present is None:
        return [None] * len(changes)
    images = [tuple(row.values()) for row in changes.old.to_pylist()]
    return [image if present else None for image, present in zip(images, changes.old_present, strict=True)]


def test_interleaved_operations_of_one_table_keep_their_order() -> None:
    changes = decode(
        KEYED,
        insert(OID, ["1", "a", None]),
        update(OID, ["1", "", "ü"]),
        delete(OID, ["1", None, None]),
        insert(OID, ["2", "b", "c"]),
        update(OID, ["3", "b", "c"], ["2", None, None]),
    )

    assert bytes(changes.operations) == b"IUDIU"
    assert rows(changes) == [
        ("1", "a", None),
        ("1", "", "ü"),
        (None, None, None),
        ("2", "b", "c"),
        ("3", "b", "c"),
    ]
    assert old_rows(changes) == [None, None, ("1",), None, ("2",)]
    assert changes.unchanged == {}


def test_an_unchanged_value_is_marked_and_not_null() -> None:
    changes = decode(KEYED, update(OID, ["1", b"u", None]), update(OID, ["2", "b", b"u"]))

    assert {ordinal: mask.tolist() for ordinal, mask in changes.unchanged.items()} == {
        1: [True, False],
        2: [False, True],
    }


def test_an_unchanged_value_comes_from_the_old_row_under_full() -> None:
    changes = decode(
        FULL,
        insert(OID, ["0", "0", "0"]),
        update(OID, ["2", b"u", b"u"], ["1", "old", None], b"O"),
        delete(OID, ["2", "old", None], b"O"),
    )

    assert rows(changes)[1] == ("2", "old", None)
    assert changes.unchanged == {}
    assert old_rows(changes) == [None, ("1", "old", None), ("2", "old", None)]


def test_an_unchanged_key_column_comes_from_the_old_key() -> None:
    relation = make_relation(["a", "b", "v"], ["a", "b"])

    changes = decode(relation, update(OID, ["2", b"u", b"u"], ["1", "long", None]))

    assert rows(changes) == [("2", "long", None)]
    assert changes.unchanged[2].tolist() == [True]
    assert list(changes.unchanged) == [2]


def test_null_outside_the_key_of_a_key_only_old_row_is_no_value() -> None:
    changes = decode(KEYED, update(OID, ["2", b"u", "w"], ["1", None, None]))

    assert changes.unchanged[1].tolist() == [True]


def test_an_old_row_with_the_same_key_is_not_a_move() -> None:
    changes = decode(
        FULL,
        update(OID, ["1", "b", "c"], ["1", "a", "c"], b"O"),
        update(OID, ["5", "b", "c"], ["1", "b", "c"], b"O"),
        key=("id",),
    )

    assert old_rows(changes) == [None, ("1",)]


def test_a_table_without_key_has_whole_old_rows() -> None:
    changes = decode(FULL, update(OID, ["1", "a", "c"], ["1", "a", "c"], b"O"))

    assert old_rows(changes) == [("1", "a", "c")]


def test_a_table_without_columns_counts_its_rows() -> None:
    changes = decode(make_relation([], [], identity="f"), insert(OID, []), insert(OID, []), delete(OID, [], b"O"))

    assert len(changes) == 3
    assert bytes(changes.operations) == b"IID"
    assert changes.new.num_columns == 0


def test_a_table_of_1600_columns_is_decoded() -> None:
    names = [f"c{n}" for n in range(1600)]
    row = [str(n) if n % 3 else None for n in range(1600)]
    row[0] = "key"

    changes = decode(make_relation(names, ["c0"]), insert(OID, row))

    assert rows(changes) == [tuple(row)]


def test_a_truncate_drops_the_rows_before_it() -> None:
    changes = decode(KEYED, insert(OID, ["1", "a", "b"]), truncate(OID, options=3), insert(OID, ["2", "c", "d"]))

    assert changes.truncated
    assert rows(changes) == [("2", "c", "d")]


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (insert(OID, ["1", b"u", "c"]), "inserted row has no value in the column 'v'"),
        (update(OID, [b"u", "b", "c"]), "column 'id', which identifies the row"),
        (insert(OID, [None, "b", "c"]), "no value in the key column 'id'"),
        (delete(OID, [None, "b", "c"]), "old row has no value in the column 'id'"),
        (insert(OID, ["1", "b"]), "as many columns"),
        (insert(OID, ["1", "b", "c"]) + b"!", "longer than its content"),
        (delete(OID, ["1", None, None]) + b"!", "longer than its content"),
        (insert(OID, ["1", "b", "c"])[:-1], "ends in the middle"),
        (insert(OID, ["1", "b", "c"])[:12], "ends in the middle"),
        (insert(OID, ["1", "b", "c"])[:20], "ends in the middle$"),
        (insert(OID, ["1", "b", "c"])[:6], "ends before its first column"),
        (insert(OID, ["1", "b", "c"])[:5], "too short"),
        (delete(OID, ["1", None, "c"])[:-1], "ends in the middle of a value"),
        (b"I\0\0", "too short|before describing"),
        (b"U" + insert(OID, ["1", "b", "c"])[1:5] + b"K" + row_data(["1", None, None]), "no new row"),
        (b"I" + delete(OID, ["1", None, None])[1:], "unknown kind of row"),
        (b"D" + insert(OID, ["1", "b", "c"])[1:], "which row it changed"),
        (insert(OID, ["1", "b", "c"]).replace(b"t", b"b"), "binary values"),
        (insert(OID, ["1", "b", "c"]).replace(b"t", b"x"), "unknown kind"),
        (insert(OID, ["1", "b", "SECRET"]).replace(b"SECRET", b"SECRE\xff"), "column 'w': .* UTF-8"),
    ],
)
def test_a_row_that_cannot_be_read_stops_with_the_tables_name_and_no_value(message: bytes, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as refusal:
        decode(KEYED, insert(OID, ["9", "9", "9"]), message)

    assert "SECRE" not in str(refusal.value)


@pytest.mark.parametrize("message", [delete(OID, ["1", None, None]), update(OID, ["1", "b", "c"])])
def test_a_change_of_a_table_without_key_needs_the_whole_old_row(message: bytes) -> None:
    with pytest.raises(DataError, match="which row it changed"):
        decode(make_relation(["id", "v", "w"], []), message)


def test_a_key_outside_the_replica_identity_is_refused() -> None:
    with pytest.raises(DataError, match="replica identity lacks"):
        decode(KEYED, insert(OID, ["1", "b", "c"]), key=("v",))


def test_columns_that_differ_from_the_catalogue_are_refused() -> None:
    other = make_table(make_relation(["id", "v"]))

    with pytest.raises(DataError, match="not those of its catalogue"):
        Decoder(lambda _: other).decode(messages([relation_message(KEYED), insert(OID, ["1", "a", "b"])]))
