"""Which column type of MySQL or MariaDB holds a source column, and how exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from cdcrep.errors import SetupError
from cdcrep.table import Column, ColumnType, Kind, Table

Exactness = Literal["exact", "widened", "lossy"]

MAX_DIGITS: Final = 65
MAX_SCALE: Final = 30
KEY_BYTES: Final = 3072
"""Of an InnoDB index with the row format DYNAMIC and pages of 16 KiB (MySQL manual, "InnoDB Limits")."""
BYTES_PER_CHARACTER: Final = 4

TEXT: Final = "LONGTEXT"
TEMPORAL: Final = frozenset({Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ})

SCALARS: Final = {
    Kind.BOOL: "TINYINT",
    Kind.INT8: "TINYINT",
    Kind.INT16: "SMALLINT",
    Kind.INT32: "INT",
    Kind.INT64: "BIGINT",
    Kind.UINT8: "TINYINT UNSIGNED",
    Kind.UINT16: "SMALLINT UNSIGNED",
    Kind.UINT32: "INT UNSIGNED",
    Kind.UINT64: "BIGINT UNSIGNED",
    Kind.FLOAT32: "FLOAT",
    Kind.FLOAT64: "DOUBLE",
    Kind.TEXT: TEXT,
    Kind.BYTES: "LONGBLOB",
    Kind.DATE: "DATE",
    Kind.TIME: "TIME(6)",
    Kind.TIMESTAMP: "DATETIME(6)",
    # TIMESTAMP ends in 2038: the instant as UTC.
    Kind.TIMESTAMPTZ: "DATETIME(6)",
    Kind.INTERVAL: TEXT,
    Kind.UUID: "CHAR(36)",
    # Both servers' JSON types would change documents (MySQL) or are text themselves (MariaDB).
    Kind.JSON: TEXT,
    Kind.ARRAY: TEXT,
    Kind.VERBATIM: TEXT,
}
"""Every kind but DECIMAL, whose type depends on its digits."""

FIXED_BYTES: Final = {
    **{Kind.BOOL: 1, Kind.INT8: 1, Kind.UINT8: 1, Kind.INT16: 2, Kind.UINT16: 2, Kind.INT32: 4, Kind.UINT32: 4},
    **{Kind.INT64: 8, Kind.UINT64: 8, Kind.FLOAT32: 4, Kind.FLOAT64: 8, Kind.DATE: 3, Kind.TIME: 6},
    **{Kind.TIMESTAMP: 8, Kind.TIMESTAMPTZ: 8, Kind.UUID: 36, Kind.DECIMAL: 32},
}
"""Bytes that a value takes in an index, at most."""


@dataclass(frozen=True)
class Dialect:
    """What differs between MySQL and MariaDB as targets."""

    is_mariadb: bool

    @property
    def collation(self) -> str:
        """The collation under which only equal texts are equal, trailing spaces included."""
        return "utf8mb4_nopad_bin" if self.is_mariadb else "utf8mb4_0900_bin"

    @property
    def character_set(self) -> str:
        """What a text column's type is followed by."""
        return f"CHARACTER SET utf8mb4 COLLATE {self.collation}"


def plain_type(kind: ColumnType) -> str:
    """Return the type that holds every value of a type, or refuses a value with an error; never alters one."""
    if kind.kind is Kind.DECIMAL:
        return _decimal(kind)
    return SCALARS[kind.kind]


def exactness(kind: ColumnType) -> Exactness:
    """Tell whether the target's type has the same values (exact) or others, too (widened); none has fewer (lossy)."""
    if plain_type(kind) == TEXT:
        return "exact" if kind.kind in (Kind.TEXT, Kind.JSON) else "widened"
    return "exact"


def target_types(table: Table) -> list[str]:
    """Return the types of a table's columns in order, without character sets; those of a key have a limited length.

    Raises:
        SetupError: the key does not fit into an index.
    """
    share = _key_share(table)
    return [_in_key(column, share) if column.name in table.key else plain_type(column.type) for column in table.columns]


def declared(type_: str, dialect: Dialect) -> str:
    """Return a type as a column's definition has it."""
    if type_.startswith("CHAR("):
        return f"{type_} CHARACTER SET ascii COLLATE ascii_bin"
    return f"{type_} {dialect.character_set}" if type_ == TEXT or type_.startswith("VARCHAR(") else type_


def limited_keys(table: Table) -> list[tuple[Column, str]]:
    """Return the key columns that are shorter in the target than at the source, with their types."""
    types = target_types(table)
    shorter = ("VARCHAR(", "VARBINARY(")
    return [(table.columns[i], types[i]) for i in table.key_positions if types[i].startswith(shorter)]


def _in_key(column: Column, share: int) -> str:
    type_ = plain_type(column.type)
    if type_ == TEXT:
        return f"VARCHAR({share // BYTES_PER_CHARACTER})"
    return f"VARBINARY({share})" if type_ == "LONGBLOB" else type_


def _key_share(table: Table) -> int:
    """Return how many bytes of the index each key column without a fixed length may take."""
    types = [table.columns[i].type for i in table.key_positions]
    fixed = sum(FIXED_BYTES[kind.kind] for kind in types if plain_type(kind) not in (TEXT, "LONGBLOB"))
    limited = sum(plain_type(kind) in (TEXT, "LONGBLOB") for kind in types)
    share = (KEY_BYTES - fixed) // max(limited, 1)
    if share < BYTES_PER_CHARACTER * 16:
        raise SetupError(f"{table.id}: the key ({', '.join(table.key)}) is too wide for an index of InnoDB")
    return share


def _decimal(kind: ColumnType) -> str:
    if kind.precision is None:
        return TEXT
    scale = kind.scale or 0
    # PostgreSQL allows numeric(3,5) and numeric(5,-2).
    digits, places = max(kind.precision - min(scale, 0), scale), max(scale, 0)
    return TEXT if digits > MAX_DIGITS or places > MAX_SCALE else f"DECIMAL({digits},{places})"
