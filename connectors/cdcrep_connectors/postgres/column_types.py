"""How a column's type is written in the target's DDL: PostgreSQL's own types as they are, others by kind."""

from __future__ import annotations

import re
from typing import Final

from cdcrep.errors import SetupError
from cdcrep.table import ColumnType, Kind

DIALECT: Final = "postgresql"

IDENTIFIER: Final = r'(?:"(?:[^"\0]|"")+"|[A-Za-z_][\w$]*)'
WORDS: Final = (
    r"(?: (?:varying|precision|with time zone|without time zone|year|month|day|hour|minute|second"
    r"|year to month|day to (?:hour|minute|second)|hour to (?:minute|second)|minute to second))?"
)
NATIVE: Final = re.compile(rf"{IDENTIFIER}(?:\.{IDENTIFIER})?{WORDS}(?:\([\w, -]*\))?{WORDS}(?:\[\d*\])*")
"""Type names as `format_type` writes them, and nothing else that DDL could hold: the text comes from another server."""

SIMPLE: Final = {
    Kind.BOOL: "boolean",
    Kind.INT8: "smallint",
    Kind.INT16: "smallint",
    Kind.INT32: "integer",
    Kind.INT64: "bigint",
    Kind.UINT8: "smallint",
    Kind.UINT16: "integer",
    Kind.UINT32: "bigint",
    Kind.UINT64: "numeric(20,0)",
    Kind.FLOAT32: "real",
    Kind.FLOAT64: "double precision",
    Kind.TEXT: "text",
    Kind.BYTES: "bytea",
    Kind.DATE: "date",
    Kind.INTERVAL: "interval",
    Kind.UUID: "uuid",
    # Keeps the text as it is, which jsonb does not.
    Kind.JSON: "json",
    Kind.VERBATIM: "text",
}


def column_type(type_: ColumnType, dialect: str) -> str:
    """Return the SQL of a type that holds the column's values.

    Raises:
        SetupError: a type name that is none.
    """
    if dialect == DIALECT:
        if not NATIVE.fullmatch(type_.native):
            raise SetupError(f"not a PostgreSQL type name: {type_.native!r}")
        return type_.native
    kind = type_.kind
    if kind is Kind.DECIMAL:
        return "numeric" if type_.precision is None else f"numeric({type_.precision},{type_.scale or 0})"
    if kind is Kind.ARRAY:
        assert type_.element is not None
        return column_type(type_.element, dialect).removesuffix("[]") + "[]"
    if kind in (Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ):
        digits = "" if type_.scale is None else f"({min(type_.scale, 6)})"
        name = "time" if kind is Kind.TIME else "timestamp"
        return name + digits + (" with time zone" if kind is Kind.TIMESTAMPTZ else "")
    return SIMPLE[kind]
