"""The shape of a source table: columns, types and the key that identifies its rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal


class Kind(StrEnum):
    """The closed set of value kinds: sources map native types to kinds, sinks map kinds to column types."""

    BOOL = "bool"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    DECIMAL = "decimal"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    TEXT = "text"
    BYTES = "bytes"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    TIMESTAMPTZ = "timestamptz"
    INTERVAL = "interval"
    UUID = "uuid"
    JSON = "json"
    ARRAY = "array"
    VERBATIM = "verbatim"
    """The source's own text form; `ColumnType.native` says of which type."""


INTEGERS: Final = frozenset(
    {Kind.INT8, Kind.INT16, Kind.INT32, Kind.INT64, Kind.UINT8, Kind.UINT16, Kind.UINT32, Kind.UINT64}
)
"""The kinds of whole numbers."""


@dataclass(frozen=True, slots=True)
class UserType:
    """A type that was created at the source and that a sink of the same dialect must create before it can be used."""

    schema: str
    name: str
    variety: Literal["enum", "domain", "composite", "range"]
    labels: tuple[str, ...] = ()
    """Labels of an enum, in order."""
    base: ColumnType | None = None
    """What a domain is over, or the subtype of a range."""
    fields: tuple[tuple[str, ColumnType], ...] = ()
    """Names and types of a composite."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """What a column holds."""

    kind: Kind
    native: str
    """The type as the source's own DDL writes it, schema-qualified and quoted: `numeric(12,2)`, `"shop"."mood"[]`."""
    precision: int | None = None
    """Digits in all of a DECIMAL; None: not limited."""
    scale: int | None = None
    """Digits after the point of a DECIMAL; fractional-second digits of temporal kinds; None: not limited."""
    element: ColumnType | None = None
    """Element type of an ARRAY."""
    user_type: UserType | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    type: ColumnType
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """A source table's shape as of a change; every set of changes carries its own, so there is no schema registry."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    """Columns that identify a row after every single change; empty: the table is a multiset of whole rows.

    In column order, never null. Columns of a deferrable constraint do not qualify: between the changes of one
    transaction two rows may share them, and a change could not say which of the two it means.
    """
    dialect: str
    """Whose text forms and native type names these are: `postgresql`, `mysql`."""
    key_positions: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Ordinals in `columns` of the key columns."""

    def __post_init__(self) -> None:
        """Derive `key_positions`."""
        ordinals = {column.name: i for i, column in enumerate(self.columns)}
        object.__setattr__(self, "key_positions", tuple(ordinals[name] for name in self.key))

    @property
    def id(self) -> TableId:
        """Schema and name: what the checkpoint, the configuration and messages call the table."""
        return TableId(self.schema, self.name)

    def same_shape(self, other: Table) -> bool:
        """Tell whether two shapes differ in nothing but whether columns may be null, which no value depends on."""
        return (self.id, self.key, self.dialect) == (other.id, other.key, other.dialect) and [
            (column.name, column.type) for column in self.columns
        ] == [(column.name, column.type) for column in other.columns]

    @property
    def identity(self) -> tuple[Column, ...]:
        """The columns that find a row: the key columns, or all of a table without a key."""
        return tuple(self.columns[i] for i in self.key_positions) if self.key else self.columns


@dataclass(frozen=True, slots=True, order=True)
class TableId:
    """The name of a source table."""

    schema: str
    name: str

    def __str__(self) -> str:
        """Render as people write it; not quoted, so not for SQL."""
        return f"{self.schema}.{self.name}"
