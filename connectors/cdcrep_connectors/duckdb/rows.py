"""Rows as something a statement can use: one or two as parameters, more as a registered Arrow table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from duckdb import DuckDBPyConnection

from cdcrep.table import Column
from cdcrep_connectors.duckdb.types import from_parameter, from_text

REGISTERED: Final = "cdcrep_rows"

FEW_ROWS: Final = 6
FEW_CELLS: Final = 128
"""Up to here parameters are quicker than an Arrow table, whose registration and scan take milliseconds; planning the
parameters' casts costs more from there on."""


WIDE: Final = 16 << 10
"""Bytes from which a value counts as wide: DuckDB's memory for narrower ones is bounded by what it does at a time."""

WIDE_COLUMN: Final = 4 << 20
"""Bytes of a column below which its values need no look."""


@dataclass(frozen=True)
class Relation:
    """What stands in a FROM clause for some rows; its columns are `r.c0`, `r.c1` and so on."""

    sql: str
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
    few = 0 < rows.num_rows <= FEW_ROWS and rows.num_rows * rows.num_columns <= FEW_CELLS
    return few and all(map(is_text, rows.schema.types))


def as_parameters(rows: pa.Table, columns: Sequence[tuple[Column, str]]) -> tuple[list[list[str]], list[str | None]]:
    """Return, for few rows in text form, SQL expressions per row and column, and the parameters they stand for."""
    values = [column.to_pylist() for column in rows.columns]
    width = rows.num_columns
    expressions = [
        [
            from_parameter(column.type, target, f"${row * width + i + 1}", values[i][row])
            for i, (column, target) in enumerate(columns)
        ]
        for row in range(rows.num_rows)
    ]
    return expressions, [column[row] for row in range(rows.num_rows) for column in values]


def is_text(type_: pa.DataType) -> bool:
    """Tell whether an Arrow column carries the source's text form."""
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def wide_values(rows: pa.Table) -> tuple[int, int]:
    """Return the bytes of the widest value in text form, and of all wide ones together; zeros: there are none."""
    widest, together = 0, 0
    for column in rows.columns:
        if is_text(column.type) and column.nbytes >= WIDE_COLUMN:
            lengths = pc.binary_length(column)
            wide = lengths.filter(pc.greater_equal(lengths, WIDE))
            widest = max(widest, pc.max(wide).as_py() or 0)
            together += pc.sum(wide).as_py() or 0
    return widest, together


class _Lent:
    """Arrow rows until they are taken back; DuckDB keeps whatever is registered in a transaction until its end."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._rows.__arrow_c_stream__(requested_schema)

    def take_back(self) -> None:
        self._rows = self._rows.schema.empty_table()


@contextmanager
def offered(connection: DuckDBPyConnection, rows: pa.Table) -> Iterator[Relation]:
    """Make rows selectable for the time of the block."""
    named = rows.rename_columns([f"c{i}" for i in range(rows.num_columns)])
    lent = _Lent(named)
    connection.register(REGISTERED, lent)
    try:
        yield Relation(f"{REGISTERED} r", tuple(map(is_text, rows.schema.types)))
    finally:
        # In a transaction that has failed this fails as well; its end forgets the table then.
        with suppress(duckdb.Error):
            connection.unregister(REGISTERED)
        lent.take_back()
