"""Which DuckDB type holds a column, and the SQL that makes its values from the source's text form."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final, Literal

from cdcrep.table import Column, ColumnType, Kind, Table

Exactness = Literal["exact", "widened", "lossy"]

MAX_DECIMAL_DIGITS: Final = 38

TEXT: Final = "VARCHAR"

SCALARS: Final = {
    Kind.BOOL: "BOOLEAN",
    Kind.INT8: "TINYINT",
    Kind.INT16: "SMALLINT",
    Kind.INT32: "INTEGER",
    Kind.INT64: "BIGINT",
    Kind.UINT8: "UTINYINT",
    Kind.UINT16: "USMALLINT",
    Kind.UINT32: "UINTEGER",
    Kind.UINT64: "UBIGINT",
    Kind.FLOAT32: "FLOAT",
    Kind.FLOAT64: "DOUBLE",
    Kind.TEXT: TEXT,
    Kind.BYTES: "BLOB",
    Kind.DATE: "DATE",
    Kind.TIME: "TIME",
    Kind.TIMESTAMP: "TIMESTAMP",
    Kind.TIMESTAMPTZ: "TIMESTAMP WITH TIME ZONE",
    Kind.INTERVAL: "INTERVAL",
    Kind.UUID: "UUID",
    Kind.JSON: "JSON",
    Kind.VERBATIM: TEXT,
}
"""Every kind but DECIMAL and ARRAY, whose types depend on more than the kind."""

TEMPORAL: Final = frozenset({Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ})

NEED_CARE: Final = frozenset({Kind.BYTES, Kind.INTERVAL, Kind.ARRAY})
"""Kinds whose text DuckDB's own cast does not understand; so it is with years before Christ."""

ERA: Final = " BC"
"""How the text form of what is before Christ ends."""

EQUAL_BUT_DIFFERENT: Final = frozenset({Kind.FLOAT32, Kind.FLOAT64, Kind.INTERVAL, Kind.ARRAY})
"""Kinds of which DuckDB calls values equal that differ: 0.0 and -0.0, 1 month and 30 days."""


def duckdb_type(kind: ColumnType) -> str:
    """Return the DuckDB type that holds every value of a type, or refuses a value with an error; never alters one."""
    if kind.kind is Kind.DECIMAL:
        return _decimal(kind)
    if kind.kind is Kind.ARRAY:
        element = duckdb_type(kind.element) if kind.element is not None else TEXT
        # Nested lists, and elements of which only the text is known (`box` separates them by semicolons): the whole
        # array stays text.
        whole = element == TEXT and not _is_character(kind.element)
        return TEXT if whole or element.endswith("]") else f"{element}[]"
    return SCALARS[kind.kind]


def exactness(kind: ColumnType) -> Exactness:
    """Tell whether DuckDB's type has the same values (exact) or more (widened); none here has fewer (lossy)."""
    if duckdb_type(kind) == TEXT:
        return "exact" if kind.kind is Kind.TEXT else "widened"
    return "exact"


def column_type(table: Table, column: Column, as_text: Sequence[str]) -> str:
    """Return the DuckDB type of a column, given the patterns of columns that are to be kept as text."""
    name = f"{table.schema}.{table.name}.{column.name}"
    if any(name == pattern or fnmatchcase(name, pattern) for pattern in as_text):
        return TEXT
    return duckdb_type(column.type)


def from_text(kind: ColumnType, target: str, text: str) -> str:
    """Return the SQL expression that makes a value of type `target` from the expression `text` (the source's form)."""
    if target == TEXT:
        return text
    if kind.kind is Kind.ARRAY and kind.element is not None:
        return _list(kind.element, target, text)
    return _scalar(kind.kind, target, text)


def from_parameter(kind: ColumnType, target: str, parameter: str, value: str | None) -> str:
    """Return the same for a parameter of a known value, plainer where the value needs no care: planning costs time."""
    before_christ = kind.kind in TEMPORAL and value is not None and value.endswith(ERA)
    if target == TEXT or not (kind.kind in NEED_CARE or before_christ):
        return f"CAST({parameter} AS {target})"
    return from_text(kind, target, f"CAST({parameter} AS {TEXT})")


def _decimal(kind: ColumnType) -> str:
    if kind.precision is None:
        return TEXT
    scale = kind.scale or 0
    # PostgreSQL allows numeric(3,5) and numeric(5,-2).
    digits = max(kind.precision - min(scale, 0), scale)
    return TEXT if digits > MAX_DECIMAL_DIGITS else f"DECIMAL({digits},{max(scale, 0)})"


def _is_character(kind: ColumnType | None) -> bool:
    return kind is not None and kind.kind is Kind.TEXT


def _scalar(kind: Kind, target: str, text: str) -> str:
    if kind is Kind.BYTES:
        return (
            f"CASE WHEN {text} IS NULL THEN NULL WHEN starts_with({text}, '\\x') THEN unhex(substr({text}, 3)) "
            "ELSE error('not hexadecimal') END"
        )
    if kind in TEMPORAL:
        # DuckDB takes a trailing BC for the name of a time zone and drops it; it writes the era behind the date.
        with_era = rf"regexp_replace({text}, '^(\S+)(.*) BC$', '\1 (BC)\2')"
        return f"CAST(CASE WHEN ends_with({text}, ' BC') THEN {with_era} ELSE {text} END AS {target})"
    if kind is Kind.INTERVAL:
        # PostgreSQL marks a change of sign by an explicit plus, which DuckDB does not read.
        return f"CAST(replace({text}, '+', '') AS {target})"
    return f"CAST({text} AS {target})"


def _list(element: ColumnType, target: str, text: str) -> str:
    """Take PostgreSQL's array literal apart; what has several dimensions or other bounds than 1 is an error."""
    inner = target.removesuffix("[]")
    body = f"substr({text}, 2, length({text}) - 2)"
    plain = f"CASE WHEN x = 'NULL' THEN NULL ELSE {from_text(element, inner, 'x')} END"
    unquoted = "regexp_replace(substr(x, 2, length(x) - 2), '\\\\((?s:.))', '\\1', 'g')"
    quoted = f"CASE WHEN starts_with(x, '\"') THEN {from_text(element, inner, unquoted)} ELSE {plain} END"
    tokens = f"""regexp_extract_all({body}, '"(?:[^"\\\\]|\\\\(?s:.))*"|[^,"]+')"""
    return f"""CASE
        WHEN {text} IS NULL THEN NULL
        WHEN {text} = '{{}}' THEN CAST([] AS {target})
        WHEN NOT starts_with({text}, '{{') OR starts_with({text}, '{{{{') THEN error('not one dimension from 1')
        WHEN contains({text}, '"') THEN list_transform({tokens}, lambda x: {quoted})
        ELSE list_transform(string_split({body}, ','), lambda x: {plain})
    END"""
