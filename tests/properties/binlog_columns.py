"""Columns of every type with random values: how each stands in a row, and what it must decode to."""

from __future__ import annotations

import datetime
import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from cdcrep_connectors.mysql.event_types import ColumnCode
from tests.properties.binary_json_writing import write_document
from tests.properties.binlog_events import Written, with_length

Pair = tuple[bytes, Any]
"""The value's bytes in a row, and the value."""


@dataclass(frozen=True)
class Kind:
    """A column type, and how to draw its values."""

    native: str
    code: int
    metadata: bytes
    values: st.SearchStrategy[Pair]

    def column(self, name: str) -> Written:
        return Written(name, self.native, self.code, self.metadata)


def integers(native: str, code: ColumnCode, width: int) -> list[Kind]:
    signed = st.integers(-(1 << 8 * width - 1), (1 << 8 * width - 1) - 1)
    unsigned = st.integers(0, (1 << 8 * width) - 1)
    return [
        Kind(native, code, b"", signed.map(lambda n: (n.to_bytes(width, "little", signed=True), n))),
        Kind(f"{native} unsigned", code, b"", unsigned.map(lambda n: (n.to_bytes(width, "little"), n))),
    ]


def decimal_bytes(unscaled: int, precision: int, scale: int) -> bytes:
    """Write a DECIMAL: groups of nine digits from the point outwards."""
    digits = f"{abs(unscaled):0{precision}}"
    whole, fraction = digits[: precision - scale], digits[precision - scale :]
    first = len(whole) % 9
    groups = [whole[:first]] * (first > 0) + [whole[i : i + 9] for i in range(first, len(whole), 9)]
    groups += [fraction[i : i + 9] for i in range(0, len(fraction), 9)]
    content = bytearray(
        b"".join(int(group).to_bytes((0, 1, 1, 2, 2, 3, 3, 4, 4, 4)[len(group)], "big") for group in groups)
    )
    content[0] ^= 0x80
    return bytes(content if unscaled >= 0 else (byte ^ 0xFF for byte in content))


def decimals(precision: int, scale: int) -> Kind:
    def pair(unscaled: int) -> Pair:
        # `scaleb` would round to the context's digits.
        digits = tuple(map(int, str(abs(unscaled))))
        value = Decimal((int(unscaled < 0), digits, -scale))
        return decimal_bytes(unscaled, precision, scale), value if precision <= 38 else format(value, "f")

    largest = 10**precision - 1
    unscaled = st.one_of(st.integers(-largest, largest), st.integers(-1000, 1000).filter(lambda n: abs(n) <= largest))
    return Kind(f"decimal({precision},{scale})", ColumnCode.NEWDECIMAL, bytes([precision, scale]), unscaled.map(pair))


def bits(count: int) -> Kind:
    metadata, width = bytes([count % 8, count // 8]), (count + 7) // 8
    return Kind(
        f"bit({count})",
        ColumnCode.BIT,
        metadata,
        st.integers(0, (1 << count) - 1).map(lambda n: (n.to_bytes(width, "big"), n)),
    )


def fraction_bytes(micro: int, digits: int) -> bytes:
    width = (digits + 1) // 2
    unit: int = 10 ** (6 - 2 * width)
    return (micro // unit).to_bytes(width, "big")


def shown(text: str, micro: int, digits: int) -> str:
    return text + (f".{micro:06}"[: digits + 1] if digits else "")


def micros(digits: int) -> st.SearchStrategy[int]:
    unit: int = 10 ** (6 - digits)
    return st.integers(0, 999_999).map(lambda n: n // unit * unit)


def datetimes(digits: int) -> Kind:
    def pair(parts: tuple[int, ...]) -> Pair:
        year, month, day, hour, minute, second, micro = parts
        number = (year * 13 + month) << 22 | day << 17 | hour << 12 | minute << 6 | second
        content = (number + 0x8000000000).to_bytes(5, "big") + fraction_bytes(micro, digits)
        return content, shown(f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}", micro, digits)

    parts = st.tuples(
        st.integers(0, 9999),
        st.integers(0, 12),
        st.integers(0, 31),
        st.integers(0, 23),
        st.integers(0, 59),
        st.integers(0, 59),
        micros(digits),
    )
    return Kind(named("datetime", digits), ColumnCode.DATETIME2, bytes([digits]), parts.map(pair))


def named(name: str, digits: int) -> str:
    return f"{name}({digits})" if digits else name


def timestamps(digits: int) -> Kind:
    def pair(parts: tuple[int, int]) -> Pair:
        seconds, micro = parts
        text = str(datetime.datetime.fromtimestamp(seconds, datetime.UTC).replace(tzinfo=None))
        if not seconds and not micro:
            text = "0000-00-00 00:00:00"
        return seconds.to_bytes(4, "big") + fraction_bytes(micro, digits), shown(text, micro, digits)

    parts = st.tuples(st.integers(0, 2**32 - 1), micros(digits))
    return Kind(named("timestamp", digits), ColumnCode.TIMESTAMP2, bytes([digits]), parts.map(pair))


def times(digits: int) -> Kind:
    def pair(parts: tuple[bool, int, int, int, int]) -> Pair:
        negative, hour, minute, second, micro = parts
        width = (digits + 1) // 2
        number = (hour << 12 | minute << 6 | second) << 8 * width | micro // 10 ** (6 - 2 * width)
        content = ((0x800000 << 8 * width) + (-number if negative else number)).to_bytes(3 + width, "big")
        sign = "-" if negative and number else ""
        return content, shown(f"{sign}{hour:02}:{minute:02}:{second:02}", micro, digits)

    sexagesimal = st.integers(0, 59)
    parts = st.tuples(st.booleans(), st.integers(0, 838), sexagesimal, sexagesimal, micros(digits))
    return Kind(named("time", digits), ColumnCode.TIME2, bytes([digits]), parts.map(pair))


dates = st.tuples(st.integers(0, 9999), st.integers(0, 12), st.integers(0, 31)).map(
    lambda parts: (
        (parts[0] << 9 | parts[1] << 5 | parts[2]).to_bytes(3, "little"),
        f"{parts[0]:04}-{parts[1]:02}-{parts[2]:02}",
    )
)


def texts(native: str, code: int, metadata: bytes, width: int, codec: str, characters: str = "") -> Kind:
    alphabet = st.sampled_from(characters) if characters else st.characters(codec="utf-8")
    values = st.text(alphabet, max_size=12).map(lambda text: (with_length(text.encode(codec), width), text))
    return Kind(native, code, metadata, values)


def strings(native: str, code: int, metadata: bytes, width: int, change: Callable[[bytes], bytes] = bytes) -> Kind:
    values = st.binary(max_size=20).map(lambda value: (with_length(change(value), width), value))
    return Kind(native, code, metadata, values)


def documents() -> Kind:
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=5), st.sampled_from([0.5, -1.25])
    )
    names = st.text(max_size=3)
    trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))

    def ordered(value: Any) -> Any:
        if isinstance(value, dict):
            keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
            return {key: ordered(value[key]) for key in keys}
        return [ordered(item) for item in value] if isinstance(value, list) else value

    def pair(value: Any, large: bool) -> Pair:
        content = write_document(value, large=large)
        return with_length(content, 4), json.dumps(ordered(value), ensure_ascii=False)

    return Kind("json", ColumnCode.JSON, b"\x04", st.builds(pair, trees, st.booleans()))


LABELS = tuple(f"l{n}" for n in range(20))
MASKS = st.integers(0, 2**20 - 1)

KINDS = [
    documents(),
    *integers("tinyint", ColumnCode.TINY, 1),
    *integers("smallint", ColumnCode.SHORT, 2),
    *integers("mediumint", ColumnCode.INT24, 3),
    *integers("int", ColumnCode.LONG, 4),
    *integers("bigint", ColumnCode.LONGLONG, 8),
    *(decimals(p, s) for p, s in ((1, 0), (5, 2), (18, 9), (19, 3), (38, 10), (38, 38), (39, 20), (65, 30), (65, 0))),
    *map(bits, (1, 8, 9, 63, 64)),
    *map(datetimes, range(7)),
    *map(timestamps, range(7)),
    *map(times, range(7)),
    Kind("date", ColumnCode.DATE, b"", dates),
    Kind("year", ColumnCode.YEAR, b"", st.integers(0, 255).map(lambda n: (bytes([n]), n + 1900 * (n > 0)))),
    Kind(
        "double", ColumnCode.DOUBLE, b"\x08", st.floats().filter(math.isfinite).map(lambda x: (struct.pack("<d", x), x))
    ),
    Kind(
        "float",
        ColumnCode.FLOAT,
        b"\x04",
        st.floats(width=32).filter(math.isfinite).map(lambda x: (struct.pack("<f", x), x)),
    ),
    texts("varchar(20) character set utf8mb4", ColumnCode.VARCHAR, struct.pack("<H", 80), 1, "utf-8"),
    texts("varchar(300) character set utf8mb4", ColumnCode.VARCHAR, struct.pack("<H", 1200), 2, "utf-8"),
    texts("char(20) character set utf8mb4", ColumnCode.STRING, bytes([254, 80]), 1, "utf-8"),
    texts("char(255) character set utf8mb4", ColumnCode.STRING, bytes([0xFE ^ 0x30, 0xFC]), 2, "utf-8"),
    texts("varchar(20) character set latin1", ColumnCode.VARCHAR, struct.pack("<H", 20), 1, "cp1252", "aäß€é~"),
    texts("varchar(20) character set gbk", ColumnCode.VARCHAR, struct.pack("<H", 40), 1, "gbk", "a中文龙"),
    texts("text character set utf8mb4", ColumnCode.BLOB, b"\x02", 2, "utf-8"),
    texts("longtext character set latin1", ColumnCode.BLOB, b"\x04", 4, "cp1252", "ab€\n"),
    strings("mediumblob", ColumnCode.BLOB, b"\x03", 3),
    strings("varbinary(20)", ColumnCode.VARCHAR, struct.pack("<H", 20), 1),
    strings("geometry", ColumnCode.GEOMETRY, b"\x04", 4),
    Kind(
        "binary(20)",
        ColumnCode.STRING,
        bytes([254, 20]),
        st.binary(max_size=20).map(lambda b: (with_length(b.rstrip(b"\0"), 1), b.ljust(20, b"\0"))),
    ),
    Kind(
        "enum(" + ",".join(f"'{label}'" for label in LABELS) + ")",
        ColumnCode.STRING,
        bytes([ColumnCode.ENUM, 1]),
        st.integers(0, 20).map(lambda n: (bytes([n]), LABELS[n - 1] if n else "")),
    ),
    Kind(
        "set(" + ",".join(f"'{label}'" for label in LABELS) + ")",
        ColumnCode.STRING,
        bytes([ColumnCode.SET, 3]),
        MASKS.map(lambda n: (n.to_bytes(3, "little"), ",".join(label for i, label in enumerate(LABELS) if n >> i & 1))),
    ),
]
