"""Rows of prepared statements become columns: every value as it was sent, broken rows refused."""

from __future__ import annotations

import random
import struct
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdcrep.errors import DataError, TransientError
from cdcrep_connectors.mysql.event_types import ColumnCode
from cdcrep_connectors.mysql.result_packets import USUAL_BYTES, Answer
from cdcrep_connectors.mysql.result_rows import WIDTHS
from cdcrep_connectors.mysql.result_values import SentColumn
from cdcrep_connectors.mysql.types import ImpossibleDates
from tests.unit.mysql.result_writing import decode, packets, put, row, sent

UTF8MB4: Final = 45
LATIN1: Final = 8
END: Final = b"\xfe\0\0\2\0"


def written_moment(value: Any) -> bytes:
    day = struct.pack("<HBB", value.year, value.month, value.day)
    clock = struct.pack("<BBB", value.hour, value.minute, value.second)
    if value.microsecond:
        return day + clock + struct.pack("<I", value.microsecond)
    return day + clock if any(clock) else day


# Type, how it is sent, its values, how one is written, what it becomes.
FORMS: Final[list[tuple[str, SentColumn, st.SearchStrategy[Any], Any, Any]]] = [
    ("tinyint", sent(ColumnCode.TINY), st.integers(-128, 127), lambda v: struct.pack("<b", v), int),
    (
        "smallint unsigned",
        sent(ColumnCode.SHORT, unsigned=True),
        st.integers(0, 65535),
        lambda v: struct.pack("<H", v),
        int,
    ),
    ("mediumint", sent(ColumnCode.INT24), st.integers(-(2**23), 2**23 - 1), lambda v: struct.pack("<i", v), int),
    (
        "bigint unsigned",
        sent(ColumnCode.LONGLONG, unsigned=True),
        st.integers(0, 2**64 - 1),
        lambda v: struct.pack("<Q", v),
        int,
    ),
    ("float", sent(ColumnCode.FLOAT), st.floats(width=32, allow_nan=False), lambda v: struct.pack("<f", v), float),
    ("double", sent(ColumnCode.DOUBLE), st.floats(allow_nan=False), lambda v: struct.pack("<d", v), float),
    ("year", sent(ColumnCode.YEAR, unsigned=True), st.integers(0, 2155), lambda v: struct.pack("<H", v), int),
    ("bit(12)", sent(ColumnCode.BIT), st.integers(0, 4095), lambda v: struct.pack(">H", v), int),
    (
        "decimal(12,2)",
        sent(ColumnCode.NEWDECIMAL),
        st.decimals(-(10**9), 10**9, places=2),
        lambda v: format(v, ".2f").encode(),
        Decimal,
    ),
    (
        "varchar(99) character set utf8mb4",
        sent(ColumnCode.VAR_STRING, UTF8MB4),
        st.text(st.characters(exclude_categories=["Cs"])),
        str.encode,
        str,
    ),
    (
        "text character set latin1",
        sent(ColumnCode.BLOB, LATIN1),
        st.text(st.characters(max_codepoint=127)),
        str.encode,
        str,
    ),
    ("longblob", sent(ColumnCode.BLOB), st.binary(max_size=400), bytes, bytes),
    ("datetime(6)", sent(ColumnCode.DATETIME), st.datetimes(), written_moment, lambda v: v),
    ("date", sent(ColumnCode.DATE), st.dates(), lambda v: struct.pack("<HBB", v.year, v.month, v.day), lambda v: v),
]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_every_row_comes_back_as_it_was_written(data: st.DataObject) -> None:
    forms = data.draw(st.lists(st.sampled_from(FORMS), min_size=1, max_size=70))
    rows = data.draw(st.lists(st.tuples(*(st.none() | form[2] for form in forms)), min_size=1, max_size=4))
    columns = [form[1] for form in forms]
    content = packets(
        [
            row(columns, [None if v is None else form[3](v) for form, v in zip(forms, values, strict=True)])
            for values in rows
        ]
    )

    batch = decode([form[0] for form in forms], columns, content)

    expected = [
        {f"c{i}": None if v is None else form[4](v) for i, (form, v) in enumerate(zip(forms, values, strict=True))}
        for values in rows
    ]
    assert batch.to_pylist() == expected


@pytest.mark.parametrize("length", [250, 251, 65_535, 65_536, (1 << 24) - 1, 50 << 20])
def test_values_of_every_length_are_whole(length: int) -> None:
    columns = [sent(ColumnCode.BLOB), sent(ColumnCode.TINY)]
    values = [b"a" * 7, b"b" * length, b"c" * 300]
    batch = decode(["longblob", "tinyint"], columns, packets([row(columns, [value, b"\5"]) for value in values]))

    assert [len(value) for value in batch["c0"].to_pylist()] == [7, length, 300]
    assert batch["c0"].to_pylist() == values
    assert batch["c1"].to_pylist() == [5, 5, 5]


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_rows_are_the_same_however_they_arrive(most: int) -> None:
    columns = [sent(ColumnCode.BLOB)]
    values = [bytes([i % 256]) * (i % 50) for i in range(700)]
    content = packets([row(columns, [value]) for value in values] + [END])
    answer, found = Answer(), []
    for at in range(0, len(content), most):
        put(answer, content[at : at + most])
        buffer, start, end = answer.rows()
        # Behind a zero byte and the NULLs stands the length in one byte.
        found += [buffer[a + 3 : b].tobytes() for a, b in zip(start, end, strict=True)]

    assert found == values
    assert answer.packet() == END
    assert answer.waiting == 0


def test_the_buffer_grows_for_a_large_row_and_shrinks_again() -> None:
    columns = [sent(ColumnCode.BLOB)]
    answer = Answer()
    put(answer, packets([row(columns, [b"x" * (40 << 20)])]))
    assert len(answer.rows()[1]) == 1
    assert len(answer.room()) <= USUAL_BYTES


def test_rows_stop_at_an_error_in_the_middle() -> None:
    columns = [sent(ColumnCode.TINY)]
    answer = Answer()
    put(
        answer,
        packets([row(columns, [b"\1"]), row(columns, [b"\2"]), b"\xff\x25\x05#70100killed", row(columns, [b"\3"])]),
    )

    assert len(answer.rows()[1]) == 2
    assert answer.packet() == b"\xff\x25\x05#70100killed"


def test_a_missing_packet_is_noticed() -> None:
    columns = [sent(ColumnCode.TINY)]
    content = packets([row(columns, [b"\1"])] * 9)
    answer = Answer()
    put(answer, content[:24] + content[32:])
    with pytest.raises(TransientError, match="missing"):
        answer.rows()


@pytest.mark.parametrize(
    ("native", "code", "value", "text"),
    [
        ("datetime(3)", ColumnCode.DATETIME, b"", "0000-00-00 00:00:00.000"),
        ("date", ColumnCode.DATE, struct.pack("<HBB", 2024, 2, 31), "2024-02-31"),
        ("timestamp", ColumnCode.TIMESTAMP, b"", "0000-00-00 00:00:00"),
        ("time(6)", ColumnCode.TIME, struct.pack("<BIBBBI", 1, 34, 22, 59, 59, 1), "-838:59:59.000001"),
        ("time", ColumnCode.TIME, b"", "00:00:00"),
    ],
)
def test_what_no_calendar_has_stays_text(native: str, code: ColumnCode, value: bytes, text: str) -> None:
    columns = [sent(code)]
    content = packets([row(columns, [None]), row(columns, [value])])
    assert decode([native], columns, content, ImpossibleDates.TEXT)["c0"].to_pylist() == [None, text]


@pytest.mark.parametrize(
    ("native", "column", "value"),
    [
        ("date", sent(ColumnCode.DATE), b""),
        ("date", sent(ColumnCode.DATE), b"\1\2\3"),
        ("datetime", sent(ColumnCode.DATETIME), struct.pack("<HBBBBB", 2024, 1, 1, 24, 0, 0)),
        ("time", sent(ColumnCode.TIME), struct.pack("<BIBBB", 0, 35, 0, 0, 0)),
        ("bit(12)", sent(ColumnCode.BIT), b"\1"),
        ("decimal(3,1)", sent(ColumnCode.NEWDECIMAL), b"100.0"),
        ("text character set utf8mb4", sent(ColumnCode.BLOB, UTF8MB4), b"\xff"),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(native: str, column: SentColumn, value: bytes) -> None:
    with pytest.raises(DataError, match=r"shop.orders: column 'c0'"):
        decode([native], [column], packets([row([column], [value])]))


@pytest.mark.parametrize(
    ("native", "column"),
    [
        ("int", sent(ColumnCode.LONGLONG)),
        ("int", sent(ColumnCode.LONG, unsigned=True)),
        ("text character set latin1", sent(ColumnCode.BLOB, UTF8MB4)),
        ("datetime", sent(ColumnCode.DATE)),
        ("text character set utf8mb4", sent(ColumnCode.LONG)),
    ],
)
def test_a_column_that_was_altered_is_not_decoded(native: str, column: SentColumn) -> None:
    with pytest.raises(TransientError, match="altered"):
        decode([native], [column], b"")


def test_random_bytes_raise_only_errors_of_ours() -> None:
    for turn in range(2000):
        forms = random.choices(FORMS, k=random.randint(1, 12))
        columns = [form[1] for form in forms]
        rows = [b"\0" + random.randbytes(random.randint(0, 60)) for _ in range(3)]
        if turn % 2:
            # Rows in which only the values are damaged.
            widths = [WIDTHS.get(column.code, random.choice((0, 4, 7, 11, 300))) for column in columns]
            rows = [row(columns, [random.randbytes(width) for width in widths]) for _ in range(3)]
        try:
            batch = decode([form[0] for form in forms], columns, packets(rows))
        except DataError:
            continue
        batch.validate(full=True)
