"""Rows of COPY's binary form are cut out of a server's answer, wherever the network cuts it."""

from __future__ import annotations

import struct

import psycopg
import pytest

from cdcrep.errors import DataError
from cdcrep_connectors.postgres.copy_out import BLOCK, copy_fields
from tests.unit.scripted_postgres import COPY_OUT, DONE, READY, SIGNATURE, answering, copied, fields, message, row

PIECE = 512 << 10

FORGED = b"d" + struct.pack(">Ih", 4 + 2 + 2 * 4, 2) + bytes(8)
"""What looks exactly like a message with a row of two empty columns."""


def read(answer: bytes, columns: int, size: int = PIECE) -> list[bytes]:
    """Return the bytes of the rows that are found in an answer."""
    with answering(answer) as connection:
        return [
            bytes(rows.buffer[start:end])
            for rows in copy_fields(connection, "COPY", columns, size)
            for start, end in zip(rows.start, rows.end, strict=True)
        ]


def test_rows_are_the_same_wherever_the_answer_is_cut() -> None:
    rows = [(b"", None), (b"d\0\0\0", FORGED), (None, b"Z\0\0\0\x05I"), (b"\xff\xff", b"x" * 9)]
    answer = copied(*(row(*values) for values in rows))

    # A buffer of six bytes and more, which grows for what is longer.
    for size in range(3, len(answer) + 1):
        assert read(answer, 2, size) == [fields(*values) for values in rows], size


def test_values_that_look_like_messages_are_left_alone() -> None:
    rows = [(b"%d" % i, (FORGED + message(row(b"x", None))) * (i % 3)) for i in range(200)]

    assert read(copied(*(row(*values) for values in rows)), 2) == [fields(*values) for values in rows]


@pytest.mark.parametrize("columns", [1, 100, 255, 256, 257, 1600])
def test_rows_of_any_number_of_columns_are_found(columns: int) -> None:
    rows = [[struct.pack(">q", i)] * columns for i in range(300)]

    assert read(copied(*(row(*values) for values in rows)), columns) == [fields(*values) for values in rows]


def test_a_table_without_rows_gives_none() -> None:
    assert read(copied(), 2) == []


def test_a_header_in_a_message_of_its_own_is_no_row() -> None:
    answer = COPY_OUT + message(SIGNATURE) + message(row(b"x")) + message(b"\xff\xff") + DONE

    assert read(answer, 1) == [fields(b"x")]


def test_notices_between_rows_are_ignored() -> None:
    notice = b"N\0\0\0\x09Mhi\0\0"
    answer = copied(row(b"x")).replace(message(b"\xff\xff"), notice + message(row(b"y")) + notice)

    assert read(answer, 1) == [fields(b"x"), fields(b"y")]


@pytest.mark.parametrize("length", [BLOCK - 20, BLOCK, PIECE, 1 << 24, (1 << 24) + PIECE])
def test_long_rows_arrive_whole_between_short_ones(length: int) -> None:
    rows = [(b"a",), (b"v" * length,), (b"b",), (b"w" * length,), (b"c",)]

    assert read(copied(*(row(*values) for values in rows)), 1) == [fields(*values) for values in rows]


@pytest.mark.parametrize(
    "wrong",
    [
        row(b"x"),
        row(b"x", b"y", b"z"),
        row(*[None] * 258),
        b"\0",
        struct.pack(">h", -2),
        SIGNATURE[:-4] + b"\x7f\xff\xff\xff\0\2",
    ],
    ids=["fewer", "more", "256 more", "half a number", "negative", "a header longer than its message"],
)
@pytest.mark.parametrize("before", [0, 1, 50])
def test_a_row_of_another_number_of_columns_is_refused(wrong: bytes, before: int) -> None:
    answer = copied(*[row(b"x", b"y")] * before, wrong, row(b"x", b"y"))

    with pytest.raises(DataError, match="another number of columns"):
        read(answer, 2)


def test_a_message_without_content_is_refused() -> None:
    with pytest.raises(DataError, match="another number of columns"):
        read(copied(row(b"x"), b"", row(b"x")), 1)


def test_what_the_server_complains_about_in_the_middle_is_raised() -> None:
    error = b"SERROR\0C22012\0Mdivision by zero\0\0"
    failed = b"E" + struct.pack(">I", len(error) + 4) + error + READY
    answer = COPY_OUT + message(SIGNATURE + row(b"x")) + message(row(b"y")) + failed

    with pytest.raises(psycopg.errors.DivisionByZero, match="division by zero"):
        read(answer, 1)


def test_an_answer_that_ends_early_is_an_error() -> None:
    answer = copied(row(b"x"), row(b"y"))

    for length in (len(answer) - len(DONE), len(answer) - 1, len(COPY_OUT) + 20):
        with pytest.raises(psycopg.OperationalError, match="closed the connection"):
            read(answer[:length], 1)
