"""Rows as something a statement can use: one or two as parameters, some as one list, many as a registered Arrow table.

What makes the difference is planning. A parameter for each cell is planned for itself; a list is one parameter whatever
its length; an Arrow table costs milliseconds to register and to scan, and next to nothing for each row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from duckdb import DuckDBPyConnection

from cdcrep.table import Column
from cdcrep_connectors.duckdb.types import ERA, from_parameter, from_text

REGISTERED: Final = "cdcrep_rows"

FEW_ROWS: Final = 2
"""Up to here a parameter for each cell is quickest."""

FEW_KEYS: Final = 6
"""Up to here it is for keys, which as constants also let DuckDB skip what cannot hold them."""

LISTED_ROWS: Final = 100
LISTED_BYTES: Final = 256 << 10
"""Up to here a list is quicker than an Arrow table; wide values would be copied more often in it."""

LISTED_TYPES: Final = {
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
}
"""Typed columns that a list holds as text, beside those that are text already."""

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
    parameters: Sequence[Any] = ()
    """What the statement needs for `sql`."""
    plain: frozenset[int] = frozenset()
    """Ordinals of columns in text form of which no value is before Christ: casting those is planned sooner."""

    def value(self, ordinal: int, column: Column, target: str) -> str:
        """Return the SQL expression for a column's value in the target's type."""
        value = f"r.c{ordinal}"
        if ordinal in self.plain:
            return from_parameter(column.type, target, value, None)
        return typed(value, column, target, text=self.text[ordinal])


def typed(value: str, column: Column, target: str, *, text: bool) -> str:
    """Return the SQL expression that makes a value of the target's type from `value`."""
    return from_text(column.type, target, value) if text else f"CAST({value} AS {target})"


def are_few(rows: pa.Table, most: int) -> bool:
    """Tell whether rows are no more than `most` and in text form, and so better handed over as parameters."""
    return 0 < rows.num_rows <= most and all(map(is_text, rows.schema.types))


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
    if rows.nbytes < WIDE_COLUMN:
        return widest, together
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
    if _can_be_listed(rows):
        yield _listed(rows)
        return
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


def _can_be_listed(rows: pa.Table) -> bool:
    known = all(is_text(type_) or type_ in LISTED_TYPES for type_ in rows.schema.types)
    return known and 0 < rows.num_rows <= LISTED_ROWS and rows.num_columns > 0 and rows.nbytes <= LISTED_BYTES


def _listed(rows: pa.Table) -> Relation:
    """Hand rows over as a list of lists of texts, in one parameter."""
    columns, selected, plain = [], [], []
    for ordinal, column in enumerate(rows.columns):
        values = column.to_pylist()
        cell = f"v[{ordinal + 1}]"
        if is_text(column.type):
            if not any(value is not None and value.endswith(ERA) for value in values):
                plain.append(ordinal)
        else:
            values = [None if value is None else str(value) for value in values]
            cell = f"CAST({cell} AS {LISTED_TYPES[column.type]})"
        columns.append(values)
        selected.append(f"{cell} AS c{ordinal}")
    sql = f"(SELECT {', '.join(selected)} FROM (SELECT unnest($1::VARCHAR[][]) AS v)) r"
    text = tuple(map(is_text, rows.schema.types))
    return Relation(sql, text, [list(map(list, zip(*columns, strict=True)))], frozenset(plain))
