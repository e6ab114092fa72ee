"""Reads TABLE_MAP events: how the rows that follow are laid out, and what the source says about their columns.

MySQL 9 source documentation, "Table_map_event"; MariaDB documentation, "TABLE_MAP_EVENT":

    table id 6   flags 2   schema: length 1, name, 0   table: length 1, name, 0   columns packed   { type 1 }
    type metadata: length packed, bytes   nullable: a bit per column   { optional: kind 1, length packed, bytes }
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from cdcrep.errors import DataError
from cdcrep_connectors.mysql.event_types import ColumnCode
from cdcrep_connectors.mysql.fields import FieldReader

MOST_COLUMNS: Final = 4096

NUMERIC: Final = frozenset(
    {
        ColumnCode.TINY,
        ColumnCode.SHORT,
        ColumnCode.INT24,
        ColumnCode.LONG,
        ColumnCode.LONGLONG,
        ColumnCode.NEWDECIMAL,
        ColumnCode.FLOAT,
        ColumnCode.DOUBLE,
        ColumnCode.YEAR,
    }
)
"""Types that have a bit in the optional metadata's SIGNEDNESS."""
CHARACTER: Final = frozenset(
    {
        ColumnCode.STRING,
        ColumnCode.VAR_STRING,
        ColumnCode.VARCHAR,
        ColumnCode.BLOB,
        ColumnCode.VECTOR,
        ColumnCode.BLOB_COMPRESSED,
        ColumnCode.VARCHAR_COMPRESSED,
    }
)
"""Types that have a collation in the optional metadata; MariaDB gives one to GEOMETRY, too."""

_METADATA_LENGTH: Final = {
    ColumnCode.DECIMAL: 0,
    ColumnCode.TINY: 0,
    ColumnCode.SHORT: 0,
    ColumnCode.LONG: 0,
    ColumnCode.FLOAT: 1,
    ColumnCode.DOUBLE: 1,
    ColumnCode.NULL: 0,
    ColumnCode.TIMESTAMP: 0,
    ColumnCode.LONGLONG: 0,
    ColumnCode.INT24: 0,
    ColumnCode.DATE: 0,
    ColumnCode.TIME: 0,
    ColumnCode.DATETIME: 0,
    ColumnCode.YEAR: 0,
    ColumnCode.NEWDATE: 0,
    ColumnCode.VARCHAR: 2,
    ColumnCode.BIT: 2,
    ColumnCode.TIMESTAMP2: 1,
    ColumnCode.DATETIME2: 1,
    ColumnCode.TIME2: 1,
    ColumnCode.BLOB_COMPRESSED: 1,
    ColumnCode.VARCHAR_COMPRESSED: 2,
    ColumnCode.VECTOR: 1,
    ColumnCode.JSON: 1,
    ColumnCode.NEWDECIMAL: 2,
    ColumnCode.BLOB: 1,
    ColumnCode.VAR_STRING: 2,
    ColumnCode.STRING: 2,
    ColumnCode.GEOMETRY: 1,
}


@dataclass(frozen=True, slots=True)
class WireColumn:
    """One column as its TABLE_MAP event describes it."""

    code: ColumnCode
    """The column's own type: ENUM and SET, which the event calls STRING, are told apart."""
    size: int = 0
    """VARCHAR, STRING: most bytes; BLOB, JSON, GEOMETRY: bytes of the length; ENUM, SET, FLOAT: bytes of the value;
    BIT: bits; NEWDECIMAL: digits."""
    scale: int = 0
    """NEWDECIMAL: digits after the point; TIME2, DATETIME2, TIMESTAMP2: digits of the second's fraction."""
    nullable: bool = True
    name: str | None = None
    """This and what follows: None where the server sends no such metadata."""
    unsigned: bool | None = None
    collation: int | None = None
    labels: tuple[bytes, ...] | None = None
    """Of ENUM and SET, in the column's character set."""
    visible: bool | None = None
    geometry: int | None = None
    dimensions: int | None = None
    """Of a VECTOR."""


@dataclass(frozen=True, slots=True)
class TableMap:
    """How rows of a table look in the ROWS events that name its number."""

    number: int = field(compare=False)
    schema: str
    name: str
    columns: tuple[WireColumn, ...]
    primary_key: tuple[int, ...] | None = None
    """Ordinals in key order; None: no metadata or no primary key."""
    primary_key_prefixes: tuple[int, ...] = ()
    """Characters of each key column that the key covers, 0 for all; empty: all of all."""


def read_table_map(content: bytes, *, mariadb: bool) -> TableMap:
    """Read a TABLE_MAP event.

    Raises:
        DataError: it is no such event, or has a column of a type that nobody here knows.
    """
    reader = FieldReader(content, "TABLE_MAP event")
    number = reader.integer(6)
    reader.take(2)
    schema = reader.string(reader.integer(1))
    reader.take(1)
    name = reader.string(reader.integer(1))
    reader.take(1)
    count = reader.packed()
    if count > MOST_COLUMNS:
        raise reader.error("it has more columns than a table may have")
    codes = reader.take(count)
    metadata = FieldReader(reader.packed_bytes(), "TABLE_MAP event")
    columns = [_read_column(code, metadata, f"{schema}.{name}") for code in codes]
    metadata.end()
    nullable = _bits(reader.take((count + 7) // 8), count, least_first=True)
    columns = [replace(column, nullable=bit) for column, bit in zip(columns, nullable, strict=True)]
    found = _Optional(columns, mariadb=mariadb)
    while reader.left:
        kind = reader.integer(1)
        found.read(kind, FieldReader(reader.packed_bytes(), "TABLE_MAP event"))
    return TableMap(number, schema, name, tuple(found.columns), found.primary_key, found.prefixes)


def _read_column(code: int, metadata: FieldReader, table: str) -> WireColumn:
    if code not in _METADATA_LENGTH:
        raise DataError(f"{table}: the source sent a column of an unknown type ({code})")
    kind = ColumnCode(code)
    raw = metadata.take(_METADATA_LENGTH[kind])
    if kind in (ColumnCode.STRING, ColumnCode.VAR_STRING):
        return _read_string(raw, metadata)
    if kind in (ColumnCode.VARCHAR, ColumnCode.VARCHAR_COMPRESSED):
        return WireColumn(kind, int.from_bytes(raw, "little"))
    if kind is ColumnCode.BIT:
        if raw[0] > 7 or not 1 <= raw[1] * 8 + raw[0] <= 64:
            raise metadata.error("a BIT column has a width that cannot be one")
        return WireColumn(kind, raw[1] * 8 + raw[0])
    if kind is ColumnCode.NEWDECIMAL:
        if not 1 <= raw[0] <= 65 or raw[1] > min(raw[0], 38):
            raise metadata.error("a DECIMAL column has a precision that cannot be one")
        return WireColumn(kind, raw[0], raw[1])
    if kind in (ColumnCode.TIME2, ColumnCode.DATETIME2, ColumnCode.TIMESTAMP2):
        if raw[0] > 6:
            raise metadata.error("a temporal column has more than six digits after the second")
        return WireColumn(kind, scale=raw[0])
    if kind in (ColumnCode.FLOAT, ColumnCode.DOUBLE):
        if raw[0] != {ColumnCode.FLOAT: 4, ColumnCode.DOUBLE: 8}[kind]:
            raise metadata.error("a floating-point column has a width that cannot be one")
        return WireColumn(kind, raw[0])
    if raw and not 1 <= raw[0] <= 4:
        raise metadata.error("a BLOB column has a length of lengths that cannot be one")
    return WireColumn(kind, raw[0] if raw else 0)


def _read_string(raw: bytes, metadata: FieldReader) -> WireColumn:
    """Take the two bytes of a STRING apart: its own type, and a length of up to ten bits."""
    kind, size = raw
    if kind & 0x30 != 0x30:
        return WireColumn(ColumnCode.STRING, size | ((kind & 0x30) ^ 0x30) << 4)
    if kind in (ColumnCode.ENUM, ColumnCode.SET):
        if not 1 <= size <= (2 if kind == ColumnCode.ENUM else 8):
            raise metadata.error("an ENUM or SET column has a width that cannot be one")
        return WireColumn(ColumnCode(kind), size)
    if kind not in (ColumnCode.STRING, ColumnCode.VAR_STRING):
        raise metadata.error("a STRING column is of an unknown kind")
    return WireColumn(ColumnCode.STRING, size)


class _Optional:
    """Takes in the optional metadata, one kind after the other."""

    def __init__(self, columns: list[WireColumn], *, mariadb: bool) -> None:
        self._character = CHARACTER | {ColumnCode.GEOMETRY} if mariadb else CHARACTER
        self.columns = columns
        self.primary_key: tuple[int, ...] | None = None
        self.prefixes: tuple[int, ...] = ()

    def read(self, kind: int, reader: FieldReader) -> None:
        """Take in one kind; those that came later than this code are passed over, as the manual says."""
        labelled = (ColumnCode.ENUM, ColumnCode.SET)
        match kind:
            case 1:
                self._signedness(reader)
            case 2:
                self._default_collation(reader, self._of(*self._character))
            case 3:
                self._set("collation", self._of(*self._character), reader)
            case 4:
                for i, column in enumerate(self.columns):
                    self.columns[i] = replace(column, name=reader.decoded(reader.packed_bytes()))
            case 5 | 6:
                self._labels(reader, ColumnCode.SET if kind == 5 else ColumnCode.ENUM)
            case 7:
                self._set("geometry", self._of(ColumnCode.GEOMETRY), reader)
            case 8 | 9:
                self._primary_key(reader, prefixes=kind == 9)
            case 10:
                self._default_collation(reader, self._of(*labelled))
            case 11:
                self._set("collation", self._of(*labelled), reader)
            case 12:
                bits = _bits(reader.rest(), len(self.columns), reader=reader)
                self.columns = [replace(c, visible=bit) for c, bit in zip(self.columns, bits, strict=True)]
            case 13:
                self._set("dimensions", self._of(ColumnCode.VECTOR), reader)
            case _:
                reader.rest()
        reader.end()

    def _of(self, *codes: ColumnCode) -> list[int]:
        return [i for i, column in enumerate(self.columns) if column.code in codes]

    def _set(self, what: str, ordinals: list[int], reader: FieldReader) -> None:
        for i in ordinals:
            self.columns[i] = replace(self.columns[i], **{what: reader.packed()})  # type: ignore[arg-type]

    def _signedness(self, reader: FieldReader) -> None:
        numeric = self._of(*NUMERIC)
        for i, unsigned in zip(numeric, _bits(reader.rest(), len(numeric), reader=reader), strict=True):
            self.columns[i] = replace(self.columns[i], unsigned=unsigned)

    def _default_collation(self, reader: FieldReader, ordinals: list[int]) -> None:
        default = reader.packed()
        others: dict[int, int] = {}
        while reader.left:
            at = reader.packed()
            others[at] = reader.packed()
        if others and max(others) >= len(ordinals):
            raise reader.error("it has a collation of a column that it has not")
        for at, i in enumerate(ordinals):
            self.columns[i] = replace(self.columns[i], collation=others.get(at, default))

    def _labels(self, reader: FieldReader, code: ColumnCode) -> None:
        for i in self._of(code):
            labels = tuple(reader.packed_bytes() for _ in range(min(reader.packed(), 65536)))
            self.columns[i] = replace(self.columns[i], labels=labels)

    def _primary_key(self, reader: FieldReader, *, prefixes: bool) -> None:
        key, lengths = [], []
        while reader.left:
            key.append(reader.packed())
            if prefixes:
                lengths.append(reader.packed())
        if max(key, default=0) >= len(self.columns):
            raise reader.error("its primary key has a column that it has not")
        self.primary_key, self.prefixes = tuple(key), tuple(lengths)


def _bits(content: bytes, count: int, *, least_first: bool = False, reader: FieldReader | None = None) -> list[bool]:
    """Unpack bits: the null bitmap begins with the lowest of a byte, optional metadata with the highest."""
    if len(content) < (count + 7) // 8:
        assert reader is not None
        raise reader.error("its optional metadata is too short")
    return [bool(content[i >> 3] >> (i & 7 if least_first else 7 - (i & 7)) & 1) for i in range(count)]
