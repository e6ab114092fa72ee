"""Maps PostgreSQL's types to kinds; there is no default: a type that is not listed is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cdcrep.errors import SetupError
from cdcrep.table import ColumnType, Kind, UserType

BUILTIN: Final[Mapping[str, Kind]] = {
    "bool": Kind.BOOL,
    "int2": Kind.INT16,
    "int4": Kind.INT32,
    "int8": Kind.INT64,
    "oid": Kind.UINT32,
    "float4": Kind.FLOAT32,
    "float8": Kind.FLOAT64,
    "numeric": Kind.DECIMAL,
    "text": Kind.TEXT,
    "varchar": Kind.TEXT,
    "bpchar": Kind.TEXT,
    "name": Kind.TEXT,
    "char": Kind.TEXT,
    "bytea": Kind.BYTES,
    "date": Kind.DATE,
    "time": Kind.TIME,
    "timestamp": Kind.TIMESTAMP,
    "timestamptz": Kind.TIMESTAMPTZ,
    "interval": Kind.INTERVAL,
    "uuid": Kind.UUID,
    "json": Kind.JSON,
    "jsonb": Kind.JSON,
    **dict.fromkeys(
        (
            *("timetz", "money", "bit", "varbit", "xml", "xid", "xid8", "cid", "tid", "pg_lsn"),
            *("inet", "cidr", "macaddr", "macaddr8"),
            *("point", "line", "lseg", "box", "path", "polygon", "circle"),
            *("tsvector", "tsquery", "jsonpath", "txid_snapshot", "pg_snapshot", "refcursor", "aclitem"),
            *("int2vector", "oidvector"),
            *("int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange"),
            *("int4multirange", "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange", "datemultirange"),
            *("regproc", "regprocedure", "regoper", "regoperator", "regclass", "regcollation", "regtype"),
            *("regrole", "regnamespace", "regconfig", "regdictionary", "regdatabase"),
        ),
        Kind.VERBATIM,
    ),
}
"""`pg_type.typname` of a type in `pg_catalog` -> kind."""

PORTABLE_KINDS: Final = frozenset(
    {
        *(Kind.BOOL, Kind.INT16, Kind.INT32, Kind.INT64, Kind.UINT32, Kind.FLOAT32, Kind.FLOAT64, Kind.DECIMAL),
        *(Kind.TEXT, Kind.BYTES, Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.UUID, Kind.JSON),
    }
)
"""Kinds whose binary form every server from 14 to 18 reads as the same value. Not intervals: servers before 17 take
the binary form of an infinite one for a finite one, where the text form makes them complain."""


@dataclass(frozen=True, slots=True)
class NativeType:
    """A row of `pg_type` with what belongs to it."""

    oid: int
    schema: str
    name: str
    type_class: str
    """`typtype`: b base, d domain, e enum, c composite, r range, m multirange, p pseudo."""
    element: int | None = None
    """Element type, if this is the array type of another type."""
    base: int | None = None
    """What a domain is over; the subtype of a range or multirange."""
    base_modifier: int = -1
    range_name: tuple[str, str] | None = None
    """Schema and name of the range type that a multirange belongs to, or of the range itself."""
    labels: tuple[str, ...] = ()
    fields: tuple[tuple[str, int, int], ...] = ()
    """Name, type and modifier of a composite's fields."""
    extension: str | None = None


Format = Callable[[int, int], str]
"""Writes a type and its modifier as DDL does: `format_type`."""


def column_type(oid: int, modifier: int, types: Mapping[int, NativeType], written: Format) -> ColumnType:
    """Map a type with its modifier.

    Raises:
        SetupError: the type is not mapped; the message names it.
    """
    native = types[oid]
    text = written(oid, modifier)
    if native.element is not None:
        element = column_type(native.element, modifier, types, written)
        return ColumnType(Kind.ARRAY, text, element=element)
    if native.type_class == "d":
        base = column_type(_known(native.base), native.base_modifier, types, written)
        user_type = UserType(native.schema, native.name, "domain", base=base)
        return ColumnType(base.kind, text, base.precision, base.scale, base.element, user_type)
    if native.schema == "pg_catalog" and native.name in BUILTIN:
        kind = BUILTIN[native.name]
        return ColumnType(kind, text, *_limits(kind, modifier))
    if native.extension is not None:
        return ColumnType(Kind.VERBATIM, text)
    if native.type_class == "e":
        enum = UserType(native.schema, native.name, "enum", labels=native.labels)
        return ColumnType(Kind.VERBATIM, text, user_type=enum)
    if native.type_class == "c":
        fields = tuple((name, column_type(of, limit, types, written)) for name, of, limit in native.fields)
        return ColumnType(
            Kind.VERBATIM, text, user_type=UserType(native.schema, native.name, "composite", fields=fields)
        )
    if native.type_class in ("r", "m") and native.range_name is not None:
        base = column_type(_known(native.base), -1, types, written)
        return ColumnType(Kind.VERBATIM, text, user_type=UserType(*native.range_name, "range", base=base))
    raise SetupError(f"type {text} is not supported")


def has_portable_binary(column: ColumnType) -> bool:
    """Tell whether `COPY (FORMAT binary)` carries a column to a server of another version and other type oids."""
    if column.kind is Kind.ARRAY:
        # The binary form of an array holds the oid of its element type: only those of built-in types are fixed.
        return column.element is not None and column.element.user_type is None and has_portable_binary(column.element)
    return column.kind in PORTABLE_KINDS


def _known(oid: int | None) -> int:
    assert oid is not None, "a domain or range always names its base type"
    return oid


def _limits(kind: Kind, modifier: int) -> tuple[int | None, int | None]:
    """Take precision and scale from a type modifier (`numerictypmodin`, `intervaltypmodin` of the server)."""
    if modifier < 0:
        return None, None
    if kind is Kind.DECIMAL:
        packed = modifier - 4
        return packed >> 16 & 0xFFFF, ((packed & 0x7FF) ^ 1024) - 1024
    if kind is Kind.INTERVAL:
        digits = modifier & 0xFFFF
        return None, None if digits == 0xFFFF else digits
    if kind in (Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ):
        return None, modifier
    return None, None
