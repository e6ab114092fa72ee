"""Rows as something a statement can select from: a few as parameters of VALUES, many as a registered Arrow table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from duckdb import DuckDBPyConnection

from cdcrep.table import Column
from cdcrep_connectors.duckdb.types import from_text

REGISTERED: Final = "cdcrep_rows"

FEW_CELLS: Final = 400
"""Up to here parameters are quicker than Arrow, whose registration takes a millisecond or two."""


@dataclass(frozen=True)
class Relation:
    """What stands in a FROM clause for some rows; its columns are `r.c0`, `r.c1` and so on."""

    sql: str
    parameters: Sequence[Any]
    text: tuple[bool, ...]
    """Per column: whether the values are in the source's text form; otherwise they are typed."""

    def value(self, ordinal: int, column: Column, target: str) -> str:
        """Return the SQL expression for a column's value in the target's type."""
        return typed(f"r.c{ordinal}", column, target, text=self.text[ordinal])


def typed(value: str, column: Column, target: str, *, text: bool) -> str:
    """Return the SQL expression that makes a value of the target's type from `value`."""
    return from_text(column.type, target, value) if text else f"CAST({value} AS {target})"


def are_few(rows: pa.Table) -> bool:
    """Tell whether rows are better handed over as parameters."""
    return rows.num_rows * rows.num_columns <= FEW_CELLS and all(map(is_text, rows.schema.types))


def is_text(type_: pa.DataType) -> bool:
    """Tell whether an Arrow column carries the source's text form."""
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


@contextmanager
def offered(connection: DuckDBPyConnection, rows: pa.Table) -> Iterator[Relation]:
    """Make rows selectable for the time of the block."""
    if rows.num_rows and are_few(rows):
        yield _as_values(rows)
        return
    named = rows.rename_columns([f"c{i}" for i in range(rows.num_columns)])
    connection.register(REGISTERED, named)
    try:
        yield Relation(f"{REGISTERED} r", (), tuple(map(is_text, rows.schema.types)))
    finally:
        connection.unregister(REGISTERED)


def _as_values(rows: pa.Table) -> Relation:
    width = rows.num_columns
    parameters = [value for row in zip(*(column.to_pylist() for column in rows.columns), strict=True) for value in row]
    # Typed in the first row only: the others take its types.
    lines = ["(" + ", ".join(f"${i + 1}::VARCHAR" for i in range(width)) + ")"]
    lines += ["(" + ", ".join(f"${row * width + i + 1}" for i in range(width)) + ")" for row in range(1, rows.num_rows)]
    names = ", ".join(f"c{i}" for i in range(width))
    return Relation(f"(VALUES {', '.join(lines)}) r({names})", parameters, (True,) * width)
