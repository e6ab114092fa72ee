"""Finds rows by their keys: writes conditions that the key's index answers, and tells whose rows came back.

Servers compare text by its collation, under which other keys may be equal: what they send is compared again, exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from cdcrep.fold import encode
from cdcrep.table import INTEGERS, Column, Kind, Table
from cdcrep_connectors.mysql.bulk_values import CONDITION_ROWS, condition, literal
from cdcrep_connectors.mysql.column_text import ColumnText, Form, column_text
from cdcrep_connectors.mysql.column_types import Dialect
from cdcrep_connectors.mysql.native import parse_native
from cdcrep_connectors.mysql.sql_text import quoted

CONDITION_BYTES: Final = 256 << 10
"""Values of keys that a statement names at most, on average."""

BATCH_BYTES: Final = 2 << 20
BATCH_ROWS: Final = 50_000

_EXACT: Final = INTEGERS | {Kind.DECIMAL, Kind.BYTES, Kind.UUID, Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ}
_EXACT_TEXT: Final = frozenset({"char", "varchar", "enum"})
_EXACT_CHARSETS: Final = frozenset({"ascii", "latin1", "utf8mb3", "utf8mb4"})
"""Each of whose characters has one form, so that the server makes the stored bytes of the text again."""
_EXACT_NATIVE: Final = frozenset({"time", "inet4", "inet6"})

# Of which only the forms of UUIDs depend: here they are those of their text.
_DIALECT: Final = Dialect(is_mariadb=True)


def has_exact_keys(table: Table) -> bool:
    """Tell whether a table's keys can be written so that the server finds the very rows by its index.

    Floating-point numbers cannot, nor dates carried as text, among which are some that no statement may name.
    """
    return bool(table.key) and all(map(_is_exact, table.identity))


def _is_exact(column: Column) -> bool:
    native = parse_native(column.type.native)
    if column.type.kind in _EXACT or native.name in _EXACT_NATIVE:
        return column.type.kind is not Kind.VERBATIM
    return column.type.kind is Kind.TEXT and native.name in _EXACT_TEXT and native.charset in _EXACT_CHARSETS


@dataclass(frozen=True)
class Reread:
    """Rows that are to be read again."""

    table: Table
    keys: pa.Table
    """Their keys, each once."""
    within: str
    """SQL: only those for which this is true."""

    def lookups(self) -> Iterator[tuple[str, pa.Table]]:
        """Yield SQL behind the table's name that finds some of the rows, and their keys.

        Raises:
            DataError: a key has a value that MySQL has no form for.
        """
        names = [quoted(column.name) for column in self.table.identity]
        step = max(1, min(CONDITION_ROWS, CONDITION_BYTES * len(self.keys) // max(self.keys.nbytes, 1)))
        for start in range(0, len(self.keys), step):
            some = self.keys.slice(start, step)
            literals = [
                _written(self.table, column, values)
                for column, values in zip(self.table.identity, some.columns, strict=True)
            ]
            # Another plan would look at every row there is, for each of these statements.
            yield f" FORCE INDEX (PRIMARY) WHERE ({condition(names, literals)}) AND {self.within}", some


def _written(table: Table, column: Column, values: pa.ChunkedArray) -> pa.Array:
    text = column_text(table, column, values.combine_chunks(), _DIALECT)
    # Quoted they would be compared as floating-point numbers.
    return literal(ColumnText(text.values, Form.NUMBER) if column.type.kind is Kind.DECIMAL else text)


def with_keys(rows: pa.RecordBatch, wanted: pa.Table) -> pa.RecordBatch:
    """Leave out rows with other keys."""
    found = pa.table(rows.select(wanted.column_names).columns, schema=wanted.schema)
    both = pa.concat_tables([wanted, found]).combine_chunks()
    codes, _ = encode(both, len(both))
    return rows.filter(pa.array(np.isin(codes[len(wanted) :], codes[: len(wanted)])))


def joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Make few batches of many small ones."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        waiting.append(batch)
        rows, size = rows + len(batch), size + batch.nbytes
        if rows >= BATCH_ROWS or size >= BATCH_BYTES:
            yield _one(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield _one(waiting)


def _one(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.concat_batches(batches)
