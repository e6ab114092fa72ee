"""Values at the edges of their types are exact, and what no type can hold is refused."""

from __future__ import annotations

import struct
import time
from decimal import Decimal

import pytest

from cdcrep.errors import DataError
from cdcrep.table import Column, Table
from cdcrep_connectors.mysql.binary_json import decode_json
from cdcrep_connectors.mysql.binlog import DecodedEvents, Decoder
from cdcrep_connectors.mysql.event_types import ColumnCode, EventType
from cdcrep_connectors.mysql.types import DIALECT, ImpossibleDates, column_type
from tests.properties.binlog_columns import decimal_bytes
from tests.properties.binlog_events import Written, WrittenTable, event, events, rows_event, table_map


def decode(
    column: Written,
    values: list[bytes | None],
    dates: ImpossibleDates = ImpossibleDates.REFUSE,
    *,
    nullable: bool = True,
) -> DecodedEvents:
    written = WrittenTable((column,))
    table = Table("s", "t", (Column(column.name, column_type(column.native, dates), nullable),), (), DIALECT)
    rows = rows_event(EventType.WRITE_ROWS, written, [({0: value},) for value in values])
    log = events([event(EventType.TABLE_MAP, table_map(written)), event(EventType.WRITE_ROWS, rows)])
    return Decoder(lambda _: table, mariadb=False, dates=dates).decode(log)


def values_of(decoded: DecodedEvents) -> list[object]:
    (changes,) = decoded.changes
    found: list[object] = changes.new.column(0).to_pylist()
    return found


def date(year: int, month: int, day: int) -> bytes:
    return (year << 9 | month << 5 | day).to_bytes(3, "little")


DATE = Written("d", "date", ColumnCode.DATE)
DATETIME = Written("d", "datetime", ColumnCode.DATETIME2, b"\0")


@pytest.mark.parametrize(
    "unscaled", [2**64, -(2**64), 2**64 - 1, -(2**63), 2**63, -(2**96), 10**38 - 1, 1 - 10**38, 0, -1]
)
def test_decimals_are_exact_where_their_binary_halves_meet(unscaled: int) -> None:
    column = Written("d", "decimal(38,0)", ColumnCode.NEWDECIMAL, bytes([38, 0]))

    assert values_of(decode(column, [decimal_bytes(unscaled, 38, 0)])) == [Decimal(unscaled)]


def test_a_decimal_whose_digits_are_none_is_refused() -> None:
    column = Written("d", "decimal(2,0)", ColumnCode.NEWDECIMAL, bytes([2, 0]))

    with pytest.raises(DataError, match="column 'd': a DECIMAL value is none"):
        decode(column, [b"\xe4"])


@pytest.mark.parametrize(
    "stored", [date(0, 0, 0), date(0, 1, 1), date(2023, 2, 29), date(2024, 2, 30), date(2024, 0, 1), date(2024, 1, 0)]
)
def test_dates_of_no_calendar_are_refused_or_counted_or_text(stored: bytes) -> None:
    good = date(2024, 2, 29)

    with pytest.raises(DataError, match="a date that is none"):
        decode(DATE, [good, stored])
    nulled = decode(DATE, [good, stored], ImpossibleDates.NULL)
    assert [str(value) for value in values_of(nulled)] == ["2024-02-29", "None"]
    assert list(nulled.impossible_dates.values()) == [1]
    assert decode(DATE, [good, stored], ImpossibleDates.TEXT).impossible_dates == {}
    assert values_of(decode(DATE, [good, stored], ImpossibleDates.TEXT))[0] == "2024-02-29"


def test_a_date_that_is_none_is_refused_in_a_key() -> None:
    with pytest.raises(DataError, match="in a key") as raised:
        decode(DATE, [date(0, 0, 0)], ImpossibleDates.NULL, nullable=False)

    assert 'impossible_dates = "text"' in str(raised.value.hint)


@pytest.mark.parametrize(
    ("column", "stored"),
    [
        (DATE, date(10_000, 1, 1)),
        (DATE, date(2024, 13, 1)),
        (DATETIME, (0x8000000000 + (2024 * 13 + 1 << 22 | 1 << 17 | 24 << 12)).to_bytes(5, "big")),
        (DATETIME, (0x8000000000 + (2024 * 13 + 1 << 22 | 1 << 17 | 60 << 6)).to_bytes(5, "big")),
        (DATETIME, bytes(5)),
        (Written("t", "time", ColumnCode.TIME2, b"\0"), (0x800000 + (839 << 12)).to_bytes(3, "big")),
        (Written("t", "time", ColumnCode.TIME2, b"\0"), (0x800000 + 60).to_bytes(3, "big")),
    ],
)
def test_temporal_values_out_of_their_range_are_refused(column: Written, stored: bytes) -> None:
    with pytest.raises(DataError, match="out of the range of its type"):
        decode(column, [stored], ImpossibleDates.TEXT)


def test_a_number_without_a_label_is_refused() -> None:
    enum = Written("e", "enum('a','b')", ColumnCode.STRING, bytes([ColumnCode.ENUM, 1]))
    set_ = Written("e", "set('a','b')", ColumnCode.STRING, bytes([ColumnCode.SET, 1]))

    with pytest.raises(DataError, match="column 'e': an ENUM value has no label"):
        decode(enum, [b"\3"])
    with pytest.raises(DataError, match="column 'e': a SET value has a bit without a label"):
        decode(set_, [b"\4"])


def test_a_document_whose_parts_are_shared_does_not_explode() -> None:
    # Each array has two elements, both of which are the array that follows: 2 to the 60th nodes.
    content = b"\2"
    for _ in range(60):
        content += struct.pack("<HHBHBH", 2, 10, 2, 10, 2, 10)
    began = time.monotonic()

    with pytest.raises(DataError, match="binary form"):
        decode_json(content + struct.pack("<HH", 0, 4))
    assert time.monotonic() - began < 60


def test_a_document_that_is_too_deep_is_refused() -> None:
    content = b"\2" + struct.pack("<HHBH", 1, 7, 2, 7) * 101 + struct.pack("<HH", 0, 4)

    with pytest.raises(DataError, match="binary form"):
        decode_json(content)


def test_signed_and_unsigned_numbers_share_their_bytes() -> None:
    for width, name, code in (
        (1, "tinyint", 1),
        (2, "smallint", 2),
        (3, "mediumint", 9),
        (4, "int", 3),
        (8, "bigint", 8),
    ):
        ones = b"\xff" * width
        assert values_of(decode(Written("n", name, code), [ones, None])) == [-1, None]
        assert values_of(decode(Written("n", f"{name} unsigned", code), [ones, None])) == [256**width - 1, None]
