"""Which kind of value a column type of MySQL or MariaDB holds."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from cdcrep.errors import SetupError
from cdcrep.table import ColumnType, Kind
from cdcrep_connectors.mysql.native import NativeType, parse_native

DIALECT: Final = "mysql"


class ImpossibleDates(StrEnum):
    """What becomes of dates that MySQL keeps and no calendar has: 0000-00-00, 2024-02-31."""

    REFUSE = "refuse"
    """One of them stops the replication."""
    NULL = "null"
    """They become NULL and are counted."""
    TEXT = "text"
    """Columns that can hold them are carried as MySQL's text, all of their values: nothing is lost."""


INTEGERS: Final = {
    "tinyint": (Kind.INT8, Kind.UINT8),
    "smallint": (Kind.INT16, Kind.UINT16),
    "mediumint": (Kind.INT32, Kind.UINT32),
    "int": (Kind.INT32, Kind.UINT32),
    "bigint": (Kind.INT64, Kind.UINT64),
}
TEXTS: Final = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
BINARIES: Final = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
GEOMETRIES: Final = frozenset(
    {
        "geometry",
        "point",
        "linestring",
        "polygon",
        "multipoint",
        "multilinestring",
        "multipolygon",
        "geometrycollection",
    }
)
SIMPLE: Final = {
    "float": Kind.FLOAT32,
    "double": Kind.FLOAT64,
    "bit": Kind.UINT64,
    "year": Kind.UINT16,
    "date": Kind.DATE,
    # From -838:59:59 to 838:59:59: a span, not a time of day.
    "time": Kind.INTERVAL,
    "datetime": Kind.TIMESTAMP,
    "timestamp": Kind.TIMESTAMPTZ,
    "enum": Kind.TEXT,
    "set": Kind.TEXT,
    "json": Kind.JSON,
    # 32-bit floats, little-endian, as MySQL itself selects them.
    "vector": Kind.BYTES,
    "uuid": Kind.UUID,
    "inet4": Kind.TEXT,
    "inet6": Kind.TEXT,
    **dict.fromkeys(TEXTS, Kind.TEXT),
    **dict.fromkeys(BINARIES, Kind.BYTES),
    # SRID in four bytes, then WKB, as MySQL itself selects them.
    **dict.fromkeys(GEOMETRIES, Kind.BYTES),
}
WITH_DATES: Final = frozenset({Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ})
TEMPORAL: Final = frozenset({"time", "datetime", "timestamp"})


def column_type(native: str, dates: ImpossibleDates = ImpossibleDates.REFUSE) -> ColumnType:
    """Return what a column of this type holds, and as what it is carried.

    Raises:
        SetupError: a type that is not supported.
    """
    parsed = parse_native(native)
    kind = _kind(parsed)
    if kind in WITH_DATES and dates is ImpossibleDates.TEXT:
        kind = Kind.VERBATIM
    if kind is None:
        raise SetupError(f"the type {parsed.name} is not supported", hint="leave the column's table out")
    if kind is Kind.DECIMAL:
        precision, scale = (*parsed.numbers, 10, 0)[:2] if len(parsed.numbers) != 1 else (parsed.numbers[0], 0)
        return ColumnType(kind, native, precision, scale)
    return ColumnType(kind, native, scale=parsed.digits if parsed.name in TEMPORAL else None)


def _kind(parsed: NativeType) -> Kind | None:
    if parsed.name in INTEGERS:
        return INTEGERS[parsed.name][parsed.unsigned]
    if parsed.name == "decimal":
        return Kind.DECIMAL
    return SIMPLE.get(parsed.name)
