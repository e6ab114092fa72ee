"""Rows become changes: keys that move, images that lack columns, tables that change or do not fit."""

from __future__ import annotations

import struct

import pytest

from cdcrep.changes import Changes
from cdcrep.errors import DataError
from cdcrep.table import Column, ColumnType, Kind, Table
from cdcrep_connectors.mysql.binlog import Decoder
from cdcrep_connectors.mysql.event_types import ColumnCode, EventType
from cdcrep_connectors.mysql.table_map import TableMap
from cdcrep_connectors.mysql.types import column_type
from tests.properties.binlog_events import (
    Image,
    Written,
    WrittenTable,
    event,
    events,
    optional,
    packed_bytes,
    rows_event,
    table_map,
    with_length,
)

ID = Written("id", "int", ColumnCode.LONG)
V = Written("v", "varchar(9) character set utf8mb4", ColumnCode.VARCHAR, struct.pack("<H", 36))
KEYED = WrittenTable((ID, V), ("id",))
KEYLESS = WrittenTable((ID, V))
NAMES = optional(4, packed_bytes(b"id") + packed_bytes(b"v"))


def row(number: int | None, text: str | None = "") -> Image:
    return {
        0: None if number is None else struct.pack("<i", number),
        1: None if text is None else with_length(text.encode(), 1),
    }


def decode(table: WrittenTable, *contents: tuple[EventType, list[tuple[Image, ...]]]) -> tuple[Changes, ...]:
    written = [event(EventType.TABLE_MAP, table_map(table))]
    written += [event(kind, rows_event(kind, table, rows)) for kind, rows in contents]
    return Decoder(lambda _: table.table(), mariadb=False).decode(events(written)).changes


def new(changes: Changes) -> list[tuple[object, ...]]:
    return [tuple(found.values()) for found in changes.new.to_pylist()]


def test_operations_of_one_table_keep_their_order() -> None:
    (changes,) = decode(
        KEYED,
        (EventType.WRITE_ROWS, [(row(1, "a"),), (row(2, "b"),)]),
        (EventType.UPDATE_ROWS, [(row(1, "a"), row(1, "A")), (row(2, "b"), row(3, "b"))]),
        (EventType.DELETE_ROWS, [(row(3, "b"),)]),
        (EventType.WRITE_ROWS, [(row(4, None),)]),
    )

    assert bytes(changes.operations) == b"IIUUDI"
    assert new(changes) == [(1, "a"), (2, "b"), (1, "A"), (3, "b"), (None, None), (4, None)]
    assert changes.old is not None
    assert changes.old_present is not None
    assert changes.old_present.tolist() == [False, False, False, True, True, False]
    assert changes.old.column("id").to_pylist()[3:5] == [2, 3]
    assert changes.old.column_names == ["id"]


def test_a_table_without_a_key_is_identified_by_whole_rows() -> None:
    (changes,) = decode(KEYLESS, (EventType.UPDATE_ROWS, [(row(1, "a"), row(1, "a")), (row(None, None), row(1, "b"))]))

    assert changes.old is not None
    assert changes.old_present is not None
    assert changes.old_present.all()
    assert changes.old.to_pylist() == [{"id": 1, "v": "a"}, {"id": None, "v": None}]


def test_what_neither_image_has_is_unchanged() -> None:
    (changes,) = decode(KEYED, (EventType.UPDATE_ROWS, [({0: row(1)[0]}, {0: row(2)[0]})]))

    assert {i: mask.tolist() for i, mask in changes.unchanged.items()} == {1: [True]}
    assert new(changes) == [(2, None)]


def test_what_only_the_image_before_has_is_taken_from_there() -> None:
    (changes,) = decode(KEYED, (EventType.UPDATE_ROWS, [(row(1, "kept"), {0: row(2)[0]})]))

    assert changes.unchanged == {}
    assert new(changes) == [(2, "kept")]


def test_an_inserted_row_without_a_columns_value_is_refused() -> None:
    with pytest.raises(DataError, match=r"s\.t: an inserted row has no value in the column 'v'") as caught:
        decode(KEYED, (EventType.WRITE_ROWS, [({0: row(1)[0]},)]))

    assert str(caught.value.hint).startswith("SET GLOBAL binlog_row_image = FULL")


def test_rows_that_do_not_say_which_row_they_changed_are_refused() -> None:
    with pytest.raises(DataError, match="an old row has no value in the column 'id', which identifies it"):
        decode(KEYED, (EventType.DELETE_ROWS, [({1: row(1)[1]},)]))
    with pytest.raises(DataError, match="did not send the column 'v', which identifies the row"):
        decode(KEYLESS, (EventType.UPDATE_ROWS, [({0: row(1)[0]}, {0: row(2)[0]})]))


def test_a_key_is_never_null() -> None:
    with pytest.raises(DataError, match="a new row has no value in the key column 'id'"):
        decode(KEYED, (EventType.WRITE_ROWS, [(row(None, "a"),)]))


def test_rows_without_any_content_do_not_go_on_for_ever() -> None:
    content = rows_event(EventType.WRITE_ROWS, KEYED, [({},)]) + b"\1\2\3"
    written = [event(EventType.TABLE_MAP, table_map(KEYED)), event(EventType.WRITE_ROWS, content)]

    with pytest.raises(DataError, match="rows without any content"):
        Decoder(lambda _: KEYED.table(), mariadb=False).decode(events(written))


def test_a_row_that_reaches_into_the_next_event_is_refused() -> None:
    content = rows_event(EventType.WRITE_ROWS, KEYED, [(row(1, "text"),)])
    written = [event(EventType.TABLE_MAP, table_map(KEYED)), *[event(EventType.WRITE_ROWS, content[:-1])] * 2]

    with pytest.raises(DataError, match=r"s\.t: a row of a ROWS event ends in the middle"):
        Decoder(lambda _: KEYED.table(), mariadb=False).decode(events(written))


def test_an_event_without_rows_changes_nothing() -> None:
    assert decode(KEYED, (EventType.WRITE_ROWS, [])) == ()


def test_a_table_that_is_not_followed_costs_nothing() -> None:
    written = [
        event(EventType.TABLE_MAP, table_map(KEYED)),
        event(EventType.WRITE_ROWS, rows_event(EventType.WRITE_ROWS, KEYED, [(row(1),)])[:-1]),
    ]

    assert Decoder(lambda _: None, mariadb=False).decode(events(written)).changes == ()


def test_the_shape_is_asked_for_once_for_each_number() -> None:
    asked: list[int] = []

    def shape(seen: TableMap) -> Table:
        asked.append(seen.number)
        return KEYED.table()

    decoder = Decoder(shape, mariadb=False)
    written = []
    for number in (100, 100, 101):
        table = WrittenTable(KEYED.columns, KEYED.key, number)
        written.append(event(EventType.TABLE_MAP, table_map(table)))
        written.append(event(EventType.WRITE_ROWS, rows_event(EventType.WRITE_ROWS, table, [(row(number),)])))

    # One set of changes, since nothing but the number is new.
    (changes,) = decoder.decode(events(written)).changes

    assert [found[0] for found in new(changes)] == [100, 100, 101]
    assert asked == [100, 101]


def test_shapes_of_one_table_that_take_turns_keep_the_order_of_its_changes() -> None:
    written = []
    for number, text in ((100, "first"), (101, "second"), (100, "third")):
        table = WrittenTable(KEYED.columns, KEYED.key, number, optional=NAMES if number == 101 else b"")
        written.append(event(EventType.TABLE_MAP, table_map(table)))
        rows = [(row(1, ""), row(1, text))]
        written.append(event(EventType.UPDATE_ROWS, rows_event(EventType.UPDATE_ROWS, table, rows)))

    decoded = Decoder(lambda _: KEYED.table(), mariadb=False).decode(events(written)).changes

    assert [new(changes) for changes in decoded] == [[(1, "first")], [(1, "second")], [(1, "third")]]


def test_a_number_goes_on_until_it_is_given_away_or_forgotten() -> None:
    decoder = Decoder(lambda _: KEYED.table(), mariadb=False)
    rows = event(EventType.WRITE_ROWS, rows_event(EventType.WRITE_ROWS, KEYED, [(row(1),)]))
    decoder.decode(events([event(EventType.TABLE_MAP, table_map(KEYED))]))

    assert len(decoder.decode(events([rows])).changes) == 1
    decoder.forget()
    with pytest.raises(DataError, match="before describing it"):
        decoder.decode(events([rows]))


def with_metadata(*parts: bytes) -> WrittenTable:
    return WrittenTable(KEYED.columns, KEYED.key, optional=b"".join(parts))


@pytest.mark.parametrize(
    "metadata",
    [
        optional(4, packed_bytes(b"v") + packed_bytes(b"id")),
        optional(1, b"\x80"),
        optional(2, b"\x08"),
    ],
)
def test_metadata_that_contradicts_the_table_is_refused(metadata: bytes) -> None:
    with pytest.raises(DataError, match="stood elsewhere"):
        decode(with_metadata(metadata), (EventType.WRITE_ROWS, [(row(1),)]))


def test_metadata_that_agrees_or_is_not_known_is_accepted() -> None:
    metadata = (NAMES, optional(1, b"\0"), optional(2, b"\xff"[:0] + b"\xfc\xff\0"), optional(200, b"later"))

    assert len(decode(with_metadata(*metadata), (EventType.WRITE_ROWS, [(row(1),)]))) == 1


@pytest.mark.parametrize("native", ["bigint", "varchar(9) character set utf8mb4", "datetime", "uuid", "json", "blob"])
def test_a_column_of_another_type_is_refused(native: str) -> None:
    shifted = Table("s", "t", (Column("id", column_type(native)), Column("v", column_type(V.native))), (), "mysql")
    written = [
        event(EventType.TABLE_MAP, table_map(KEYED)),
        event(EventType.WRITE_ROWS, rows_event(EventType.WRITE_ROWS, KEYED, [(row(1),)])),
    ]

    with pytest.raises(DataError, match=r"s\.t: column 'id': the rows were written when it was not") as caught:
        Decoder(lambda _: shifted, mariadb=False).decode(events(written))
    assert caught.value.hint is not None


def test_text_may_be_carried_as_its_bytes() -> None:
    raw = ColumnType(Kind.BYTES, V.native)
    table = Table("s", "t", (Column("id", column_type("int")), Column("v", raw)), ("id",), "mysql")
    image: Image = {0: struct.pack("<i", 1), 1: with_length(b"\xff\xfe", 1)}
    written = [
        event(EventType.TABLE_MAP, table_map(KEYED)),
        event(EventType.WRITE_ROWS, rows_event(EventType.WRITE_ROWS, KEYED, [(image,)])),
    ]

    (changes,) = Decoder(lambda _: table, mariadb=False).decode(events(written)).changes

    assert new(changes) == [(1, b"\xff\xfe")]


def test_an_error_names_table_and_column_and_never_the_value() -> None:
    bad: Image = {0: struct.pack("<i", 1), 1: with_length(b"secret\xff", 1)}

    with pytest.raises(DataError, match=r"s\.t: column 'v': a text value is not valid UTF-8") as caught:
        decode(KEYED, (EventType.WRITE_ROWS, [(bad,)]))
    assert "secret" not in caught.value.message
