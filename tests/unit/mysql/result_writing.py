"""Writes what a server answers to a prepared SELECT: definitions, rows and packets, for the tests of their decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from cdcrep.table import Column, TableId
from cdcrep_connectors.mysql.dates import Tally
from cdcrep_connectors.mysql.result_packets import LONGEST, Answer
from cdcrep_connectors.mysql.result_rows import WIDTHS
from cdcrep_connectors.mysql.result_values import UNSIGNED, Result, SentColumn
from cdcrep_connectors.mysql.types import ImpossibleDates, column_type

TABLE: Final = TableId("shop", "orders")


def length_encoded(number: int) -> bytes:
    """Write a length-encoded integer."""
    if number < 251:
        return bytes([number])
    for first, width in ((252, 2), (253, 3), (254, 8)):
        if number < 1 << 8 * width:
            return bytes([first]) + number.to_bytes(width, "little")
    raise AssertionError(number)


def definition(code: int, collation: int = 63, flags: int = 0) -> bytes:
    """Write a column definition."""
    names = b"".join(length_encoded(len(name)) + name for name in (b"def", b"s", b"t", b"t", b"c", b"c"))
    return names + b"\x0c" + collation.to_bytes(2, "little") + bytes(4) + bytes([code]) + flags.to_bytes(2, "little")


def sent(code: int, collation: int = 63, *, unsigned: bool = False) -> SentColumn:
    """Describe a column as a server does."""
    return SentColumn.parse(definition(code, collation, UNSIGNED * unsigned) + bytes(3))


def row(columns: Sequence[SentColumn], values: Sequence[bytes | None]) -> bytes:
    """Write a row; values of fixed width as they are, others get their length in front."""
    nulls = sum(1 << (i + 2) for i, value in enumerate(values) if value is None)
    content = b"".join(
        value if column.code in WIDTHS else length_encoded(len(value)) + value
        for column, value in zip(columns, values, strict=True)
        if value is not None
    )
    return b"\0" + nulls.to_bytes((len(columns) + 9) // 8, "little") + content


def packets(payloads: Sequence[bytes], sequence: int = 1) -> bytes:
    """Write packets, splitting those that are too long for one."""
    written = bytearray()
    for payload in payloads:
        at, length = 0, LONGEST
        while length == LONGEST:
            length = min(LONGEST, len(payload) - at)
            written += length.to_bytes(3, "little") + bytes([sequence & 0xFF]) + payload[at : at + length]
            at, sequence = at + length, sequence + 1
    return bytes(written)


def put(answer: Answer, received: bytes, most: int = 1 << 30) -> None:
    """Let an answer receive bytes, at most so many at once."""
    content = memoryview(received)
    while content:
        room = answer.room()
        count = min(len(room), len(content), most)
        room[:count] = content[:count]
        answer.received(count)
        content = content[count:]


def decode(
    natives: Sequence[str],
    columns: Sequence[SentColumn],
    content: bytes,
    dates: ImpossibleDates = ImpossibleDates.REFUSE,
) -> pa.RecordBatch:
    """Decode all rows in some packets as those of columns `c0`, `c1` and so on of these types."""
    table = [Column(f"c{i}", column_type(native, dates), True) for i, native in enumerate(natives)]
    answer = Answer()
    put(answer, content)
    return Result(TABLE, columns, table, dates, Tally()).decode(*answer.rows())
