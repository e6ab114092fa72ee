"""Which column type of MySQL or MariaDB holds a source column, and how exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from cdcrep.errors import SetupError
from cdcrep.table import Column, ColumnType, Kind, Table
from cdcrep_connectors.mysql.same_family import is_geometry, is_labelled, own_types

Exactness = Literal["exact", "widened", "lossy"]

MAX_DIGITS: Final = 65
MAX_SCALE: Final = 30
KEY_BYTES: Final = 3072
"""Of an InnoDB index with the row format DYNAMIC and pages of 16 KiB (MySQL manual, "InnoDB Limits")."""
BYTES_PER_CHARACTER: Final = 4

MOST_COLUMNS: Final = 1017
ROW_BYTES: Final = 8126
"""Of a row in its page, where a text or byte string may take 40 bytes (MySQL manual, "Row Size Limits")."""
INLINE_BYTES: Final = 41

TEXT: Final = "LONGTEXT"
BYTES: Final = "LONGBLOB"
BINARY_UUID: Final = "BINARY(16)"
SPAN: Final = "TIME(6)"
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
    Kind.BYTES: BYTES,
    Kind.DATE: "DATE",
    Kind.TIME: "TIME(6)",
    Kind.TIMESTAMP: "DATETIME(6)",
    # TIMESTAMP ends in 2038: the instant as UTC.
    Kind.TIMESTAMPTZ: "DATETIME(6)",
    Kind.INTERVAL: TEXT,
    # Both servers' JSON types would change documents (MySQL) or are text themselves (MariaDB).
    Kind.JSON: TEXT,
    Kind.ARRAY: TEXT,
    Kind.VERBATIM: TEXT,
}
"""Every kind but those whose type depends on more: DECIMAL on its digits, UUID on the server."""

WIDER: Final = frozenset({Kind.BOOL, Kind.TIME})
"""Kinds whose types hold more: other numbers, times of more than a day."""

FIXED_BYTES: Final = {
    **{Kind.BOOL: 1, Kind.INT8: 1, Kind.UINT8: 1, Kind.INT16: 2, Kind.UINT16: 2, Kind.INT32: 4, Kind.UINT32: 4},
    **{Kind.INT64: 8, Kind.UINT64: 8, Kind.FLOAT32: 4, Kind.FLOAT64: 8, Kind.DATE: 3, Kind.TIME: 6},
    **{Kind.TIMESTAMP: 8, Kind.TIMESTAMPTZ: 8, Kind.UUID: 16, Kind.DECIMAL: 32},
    Kind.INTERVAL: 6,
}
"""Bytes that a value takes in an index, at most."""
LABELLED_BYTES: Final = {"ENUM": 2, "SET": 8}

LENGTH: Final = re.compile(
    r"(?:character varying|character|varchar|char|varbinary|binary)\((?P<length>\d+)\)", re.IGNORECASE
)
SHORT: Final = {"enum(": 255, "inet4": 15, "inet6": 45, "name": 63, '"char"': 1}
"""Types of text without a length of their own -> characters of their longest value."""


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


MYSQL: Final = Dialect(is_mariadb=False)


def plain_type(kind: ColumnType, dialect: Dialect = MYSQL) -> str:
    """Return the type that holds every value of a type, or refuses a value with an error; never alters one."""
    if kind.kind is Kind.DECIMAL:
        return _decimal(kind)
    if kind.kind is Kind.UUID:
        return "UUID" if dialect.is_mariadb else BINARY_UUID
    if kind.kind is Kind.INTERVAL and kind.native.startswith("time"):
        # MySQL's own, of plus and minus 838 hours.
        return SPAN
    return SCALARS[kind.kind]


def exactness(kind: ColumnType, dialect: Dialect = MYSQL) -> Exactness:
    """Tell whether the type by kind has the same values (exact) or others, too (widened); none has fewer (lossy)."""
    if plain_type(kind, dialect) == TEXT:
        return "exact" if kind.kind is Kind.TEXT else "widened"
    return "widened" if kind.kind in WIDER else "exact"


def target_types(table: Table, dialect: Dialect, *, plain: bool = False) -> list[str]:
    """Return the types of a table's columns in order, without character sets; those of a key have a limited length.

    `plain`: all of them by their kinds, also those that a source of the family has itself.

    Raises:
        SetupError: the key does not fit into an index, or the columns do not fit into a row.
    """
    types = [plain_type(column.type, dialect) for column in table.columns]
    if not plain:
        types = [own or by_kind for own, by_kind in zip(own_types(table), types, strict=True)]
    key = [types[i] for i in table.key_positions]
    share = _key_share(table, key)
    for i in table.key_positions:
        types[i] = _in_key(types[i], share)
    inline = sum(
        INLINE_BYTES if _is_long(type_) else _fixed_bytes(column, type_)
        for column, type_ in zip(table.columns, types, strict=True)
        if column.name not in table.key
    )
    if len(types) > MOST_COLUMNS or inline > ROW_BYTES:
        raise SetupError(f"{table.id}: a row of {len(types)} columns of these types does not fit into a page of InnoDB")
    return types


def declared(type_: str, dialect: Dialect) -> str:
    """Return a type as a column's definition has it."""
    is_text = type_ == TEXT or type_.startswith("VARCHAR(") or is_labelled(type_)
    return f"{type_} {dialect.character_set}" if is_text else type_


def limited_keys(table: Table, dialect: Dialect) -> list[tuple[Column, str]]:
    """Return the key columns that may hold longer values at the source than in the target, with their types there."""
    types = target_types(table, dialect)
    found = [(table.columns[i], types[i]) for i in table.key_positions]
    return [
        (column, type_)
        for column, type_ in found
        if (room := LENGTH.fullmatch(type_)) and not _longest(column.type) <= int(room["length"])
    ]


def _longest(kind: ColumnType) -> float:
    """Return how many characters, or bytes, a value of a column has at most at its source."""
    if kind.kind is Kind.ARRAY:
        return float("inf")
    if limited := LENGTH.match(kind.native):
        return int(limited["length"])
    if kind.user_type is not None and kind.user_type.labels:
        return max(map(len, kind.user_type.labels))
    return next((length for name, length in SHORT.items() if kind.native.startswith(name)), float("inf"))


def _is_long(type_: str) -> bool:
    """Tell whether values of a type have no limited length."""
    return type_ in (TEXT, BYTES) or is_geometry(type_)


def _fixed_bytes(column: Column, type_: str) -> int:
    if is_labelled(type_):
        return LABELLED_BYTES[type_.partition("(")[0]]
    return FIXED_BYTES[column.type.kind]


def _in_key(type_: str, share: int) -> str:
    if type_ == TEXT:
        return f"VARCHAR({share // BYTES_PER_CHARACTER})"
    # A geometry is no key in MySQL.
    return f"VARBINARY({share})" if _is_long(type_) else type_


def _key_share(table: Table, types: list[str]) -> int:
    """Return how many bytes of the index each key column without a fixed length may take."""
    columns = [table.columns[i] for i in table.key_positions]
    fixed = sum(_fixed_bytes(*each) for each in zip(columns, types, strict=True) if not _is_long(each[1]))
    share = (KEY_BYTES - fixed) // max(sum(map(_is_long, types)), 1)
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
