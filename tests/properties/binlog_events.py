"""Writes what MySQL and MariaDB write into their binary logs: the opposite of the decoder, for tests."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from cdcrep.columns import padded
from cdcrep.table import Column, Table
from cdcrep_connectors.mysql.event_types import UPDATE, WITH_EXTRA_INFORMATION, EventType
from cdcrep_connectors.mysql.framing import Events, Framing, cut
from cdcrep_connectors.mysql.types import DIALECT, ImpossibleDates, column_type

Cell = bytes | None
"""A value as it stands in a row, its length in front included; None: NULL."""
Image = dict[int, Cell]
"""Ordinal -> value of the columns that the image has."""


@dataclass(frozen=True)
class Written:
    """A column as TABLE_MAP names it."""

    name: str
    native: str
    code: int
    metadata: bytes = b""


@dataclass(frozen=True)
class WrittenTable:
    columns: tuple[Written, ...]
    key: tuple[str, ...] = ()
    number: int = 100
    name: str = "t"
    schema: str = "s"
    optional: bytes = field(default=b"", repr=False)

    def table(self) -> Table:
        columns = tuple(
            Column(column.name, column_type(column.native, ImpossibleDates.TEXT)) for column in self.columns
        )
        return Table(self.schema, self.name, columns, self.key, DIALECT)


def event(kind: int, content: bytes, *, checksum: bool = True, flags: int = 0, server: int = 1) -> bytes:
    length = 19 + len(content) + 4 * checksum
    whole = struct.pack("<IBIIIH", 1_700_000_000, kind, server, length, 0, flags) + content
    return whole + struct.pack("<I", zlib.crc32(whole)) * checksum


def format_description(*, checksum: bool = True, version: bytes = b"9.7.4", in_use: bool = False) -> bytes:
    post_headers = bytearray(42)
    post_headers[EventType.TABLE_MAP - 1] = 8
    content = struct.pack("<H50sIB", 4, version, 0, 19) + bytes(post_headers) + bytes([checksum])
    whole = bytearray(event(EventType.FORMAT_DESCRIPTION, content))
    whole[17] |= in_use
    return bytes(whole)


def packed(number: int) -> bytes:
    if number < 251:
        return bytes([number])
    if number < 1 << 16:
        return b"\xfc" + struct.pack("<H", number)
    return b"\xfd" + struct.pack("<I", number)[:3] if number < 1 << 24 else b"\xfe" + struct.pack("<Q", number)


def packed_bytes(content: bytes) -> bytes:
    return packed(len(content)) + content


def table_map(table: WrittenTable) -> bytes:
    schema, name = table.schema.encode(), table.name.encode()
    count = len(table.columns)
    content = struct.pack("<Q", table.number)[:6] + b"\1\0"
    content += bytes([len(schema)]) + schema + b"\0" + bytes([len(name)]) + name + b"\0"
    content += packed(count) + bytes(column.code for column in table.columns)
    content += packed_bytes(b"".join(column.metadata for column in table.columns))
    return content + bytes([255] * ((count + 7) // 8)) + table.optional


def optional(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + packed_bytes(content)


def bitmap(bits: Sequence[bool]) -> bytes:
    content = bytearray((len(bits) + 7) // 8)
    for i, bit in enumerate(bits):
        content[i >> 3] |= bit << (i & 7)
    return bytes(content)


def image_bytes(image: Image) -> bytes:
    ordinals = sorted(image)
    nulls = bitmap([image[i] is None for i in ordinals])
    return nulls + b"".join(image[i] or b"" for i in ordinals)


def rows_event(
    kind: EventType, table: WrittenTable, rows: Sequence[tuple[Image, ...]], *, extra: bytes = b"", shared: bytes = b""
) -> bytes:
    """Write rows, each of one image, or of two for an UPDATE; all have the same columns."""
    content = struct.pack("<Q", table.number)[:6] + b"\1\0"
    if kind in WITH_EXTRA_INFORMATION:
        content += struct.pack("<H", 2 + len(extra)) + extra
    count = len(table.columns)
    content += packed(count)
    for image in rows[0] if rows else ({},) * (2 if kind in UPDATE else 1):
        content += bitmap([i in image for i in range(count)])
    for row in rows:
        content += shared.join(map(image_bytes, row))
    return content


def with_length(content: bytes, width: int) -> bytes:
    return len(content).to_bytes(width, "little") + content


def compress(content: bytes) -> bytes:
    """Compress as MariaDB does."""
    return bytes([0x84]) + struct.pack(">I", len(content)) + zlib.compress(content)


def events(contents: Sequence[bytes], *, checksums: bool = True) -> Events:
    """Lay whole events behind each other and verify them."""
    whole = b"".join(contents)
    buffer = padded(whole)
    start, end, after = cut(buffer, 0, len(whole))
    assert after == len(whole)
    return Framing(checksums=checksums).verify(buffer, start, end)
