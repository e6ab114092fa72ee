"""Decodes MySQL's binary JSON to the text that the server prints for it. Python per value and per node.

MySQL 9 source, `sql-common/json_binary.h`; little-endian, offsets from the begin of the object or array:

    value    type 1   content
    object   count, size { key offset, key length 2 } { type 1, offset or content } keys, values     2 or 4 bytes each
    array    count, size { type 1, offset or content } values
    string   length in groups of seven bits, lowest first   UTF-8
    opaque   column type 1   length as above   bytes
"""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import ClassVar, Final

from cdcrep.errors import DataError
from cdcrep_connectors.mysql.event_types import ColumnCode

SMALL_OBJECT, LARGE_OBJECT, SMALL_ARRAY, LARGE_ARRAY, LITERAL = range(5)
INT16, UINT16, INT32, UINT32, INT64, UINT64, DOUBLE, STRING = range(5, 13)
OPAQUE: Final = 15

DEEPEST: Final = 100
"""MySQL's own limit."""
DIGITS_WITHOUT_EXPONENT: Final = 15

_LITERALS: Final = {0: "null", 1: "true", 2: "false"}
NUMBERS: Final = {
    INT16: struct.Struct("<h"),
    UINT16: struct.Struct("<H"),
    INT32: struct.Struct("<i"),
    UINT32: struct.Struct("<I"),
    INT64: struct.Struct("<q"),
    UINT64: struct.Struct("<Q"),
    DOUBLE: struct.Struct("<d"),
}
INLINED: Final = {
    2: frozenset({LITERAL, INT16, UINT16}),
    4: frozenset({LITERAL, INT16, UINT16, INT32, UINT32}),
}
"""Types whose values stand in the entry itself, by the bytes of an offset."""
OBJECTS: Final = frozenset({SMALL_OBJECT, LARGE_OBJECT})
quoted = json.encoder.encode_basestring

Node = str | list["Node"] | dict[str, "Node"]
"""The text of a scalar, or what holds others."""


def decode_json(content: bytes) -> str:
    """Return the text of a document, as the server prints it.

    Raises:
        DataError: it is no document.
    """
    return write_json(parse_json(content))


def parse_json(content: bytes) -> Node:
    """Take a document apart.

    Raises:
        DataError: it is no document.
    """
    # What the server itself makes of a value that was never written.
    if not content:
        return "null"
    try:
        return JsonParser(content).value(content[0], 1, 0)
    except JsonParser.ERRORS:
        raise _broken() from None


def write_json(node: Node) -> str:
    """Write a document as the server prints it."""
    if isinstance(node, str):
        return node
    if isinstance(node, list):
        return f"[{', '.join(map(write_json, node))}]"
    return f"{{{', '.join(f'{quoted(key)}: {write_json(value)}' for key, value in node.items())}}}"


def write_double(number: float) -> str:
    """Write a number as the server does: the fewest digits that say it, an exponent beyond 15 digits.

    Raises:
        DataError: it is no number.
    """
    if not math.isfinite(number):
        raise _broken()
    mantissa, _, exponent = repr(abs(number)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return "-0.0" if math.copysign(1, number) < 0 else "0.0"
    leading = len(whole + fraction) - len(digits)
    point = len(whole) + int(exponent or 0) - leading
    digits = digits.rstrip("0")
    sign = "-" if number < 0 else ""
    if not -DIGITS_WITHOUT_EXPONENT < point <= DIGITS_WITHOUT_EXPONENT:
        tail = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{tail}e{point - 1}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return f"{sign}{digits[:point].ljust(point, '0')}.{digits[point:] or '0'}"


class JsonParser:
    """Reads nodes; together they may not take more than the document has, so that shared parts cannot explode."""

    ERRORS: ClassVar = (IndexError, struct.error, UnicodeDecodeError)
    """What else than DataError says that a document is none."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._budget = len(content) + 1

    def value(self, kind: int, at: int, depth: int) -> Node:
        """Read the value of a type that begins at a place."""
        self._spend(1)
        if kind in NUMBERS:
            (number,) = NUMBERS[kind].unpack_from(self.content, at)
            return write_double(number) if kind == DOUBLE else str(number)
        if kind == STRING:
            return quoted(self._bytes(at).decode())
        if kind == LITERAL:
            if self.content[at] not in _LITERALS:
                raise _broken()
            return _LITERALS[self.content[at]]
        if kind == OPAQUE:
            return _opaque(self.content[at], self._bytes(at + 1))
        if kind > LARGE_ARRAY or depth >= DEEPEST:
            raise _broken()
        return self.container(kind, at, depth)

    def container(self, kind: int, at: int, depth: int) -> Node:
        """Read an object or an array that begins at a place."""
        width, number = self.widths(kind)
        (count,) = number.unpack_from(self.content, at)
        self._spend(count)
        inlined, keyed = INLINED[width], kind in OBJECTS
        key_entries = at + 2 * width
        entries = key_entries + (count * (width + 2) if keyed else 0)
        values: list[Node] = []
        for entry in range(entries, entries + count * (width + 1), width + 1):
            value_kind = self.content[entry]
            if value_kind in inlined:
                values.append(self.value(value_kind, entry + 1, depth + 1))
            else:
                (offset,) = number.unpack_from(self.content, entry + 1)
                values.append(self.value(value_kind, at + offset, depth + 1))
        if not keyed:
            return values
        keys = []
        for entry in range(key_entries, entries, width + 2):
            (offset,) = number.unpack_from(self.content, entry)
            (length,) = NUMBERS[UINT16].unpack_from(self.content, entry + width)
            keys.append(self.bytes_at(at + offset, length).decode())
        return dict(zip(keys, values, strict=True))

    @staticmethod
    def widths(kind: int) -> tuple[int, struct.Struct]:
        """Return the bytes of counts and offsets in an object or an array, and what reads them."""
        return (4, NUMBERS[UINT32]) if kind in (LARGE_OBJECT, LARGE_ARRAY) else (2, NUMBERS[UINT16])

    def extent(self, at: int) -> tuple[int, int]:
        """Return where the bytes begin whose length stands at a place, and how many they are."""
        length = shift = 0
        while True:
            byte = self.content[at]
            length |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return at, length
            if shift > 28:
                raise _broken()

    def _bytes(self, at: int) -> bytes:
        return self.bytes_at(*self.extent(at))

    def bytes_at(self, at: int, length: int) -> bytes:
        """Read bytes: keys, strings, opaque values."""
        self._spend(length)
        if at + length > len(self.content):
            raise _broken()
        return self.content[at : at + length]

    def _spend(self, amount: int) -> None:
        self._budget -= amount
        if self._budget < 0:
            raise _broken()


def _opaque(code: int, content: bytes) -> str:
    if code == ColumnCode.NEWDECIMAL:
        return _decimal(content)
    if code in (ColumnCode.DATE, ColumnCode.DATETIME, ColumnCode.TIMESTAMP, ColumnCode.TIME) and len(content) == 8:
        (packed,) = NUMBERS[INT64].unpack(content)
        return f'"{_time(packed) if code == ColumnCode.TIME else _datetime(packed, date_only=code == ColumnCode.DATE)}"'
    return f'"base64:type{code}:{base64.b64encode(content).decode()}"'


def _datetime(packed: int, *, date_only: bool) -> str:
    micro, seconds = packed & 0xFFFFFF, packed >> 24
    clock, date = seconds & 0x1FFFF, seconds >> 17
    months, day = date >> 5, date & 31
    text = f"{months // 13:04}-{months % 13:02}-{day:02}"
    return text if date_only else f"{text} {clock >> 12:02}:{clock >> 6 & 63:02}:{clock & 63:02}.{micro:06}"


def _time(packed: int) -> str:
    size = abs(packed)
    micro, clock = size & 0xFFFFFF, size >> 24
    sign = "-" if packed < 0 else ""
    return f"{sign}{clock >> 12 & 0x3FF:02}:{clock >> 6 & 63:02}:{clock & 63:02}.{micro:06}"


def _decimal(content: bytes) -> str:
    """Write a DECIMAL, whose layout is that of `numbers`, behind its precision and scale."""
    precision, scale = content[0], content[1]
    whole = precision - scale
    if whole < 0:
        raise _broken()
    digits = [whole % 9] * (whole % 9 > 0) + [9] * (whole // 9) + [9] * (scale // 9) + [scale % 9] * (scale % 9 > 0)
    raw = bytearray(content[2:])
    negative = raw[0] < 0x80
    raw[0] ^= 0x80
    if negative:
        raw = bytearray(byte ^ 0xFF for byte in raw)
    text, at = "", 0
    for count in digits:
        width = (count + 1) // 2 if count < 9 else 4
        group = int.from_bytes(raw[at : at + width], "big")
        if group >= 10**count or at + width > len(raw):
            raise _broken()
        text, at = text + f"{group:0{count}}", at + width
    number = (text[:whole].lstrip("0") or "0") + (f".{text[whole:]}" if scale else "")
    return f"-{number}" if negative else number


def _broken() -> DataError:
    return DataError("a JSON value is not in MySQL's binary form")
