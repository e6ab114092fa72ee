"""Writes Arrow columns as rows that the servers read: lists for INSERT … VALUES, lines for LOAD DATA.

MySQL 9.7 manual, "LOAD DATA Statement", "String Literals"; MariaDB, "LOAD DATA INFILE".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdcrep.columns import content, joined
from cdcrep.table import Column, Table
from cdcrep_connectors.mysql.column_text import LARGE, ColumnText, Form, column_text
from cdcrep_connectors.mysql.column_types import MYSQL, Dialect

SLICE_BYTES: Final = 16 << 20
"""Rows are written in slices of about this size, so that copies of a large batch do not add up in memory."""

CONDITION_ROWS: Final = 500
"""Keys that a statement names: of more the optimiser may not remember where they stand (range_optimizer_max_mem_size),
and search the whole table."""

LINES: Final = (
    "CHARACTER SET utf8mb4 FIELDS TERMINATED BY '\\t' ENCLOSED BY '' ESCAPED BY '\\\\' "
    "LINES STARTING BY '' TERMINATED BY '\\n'"
)
"""How `lines` separates and escapes."""


@dataclass(frozen=True)
class NamedRows:
    """Rows for a table of the target, or for a stage that belongs to one."""

    table: Table
    """Whose source's text forms the values may have."""
    names: Sequence[str]
    """Of the target's columns, quoted."""
    columns: Sequence[Column]
    """What the values mean."""
    values: Sequence[pa.ChunkedArray]
    """Those of `columns`, as the text forms of the table's source or typed."""
    count: int


def value_lists(rows: NamedRows, most_bytes: int, dialect: Dialect = MYSQL) -> Iterator[bytes]:
    """Yield `(…),(…)` for the rows, in pieces of at most `most_bytes`; a single row may be larger.

    Raises:
        DataError: a column holds a value that MySQL has no form for.
    """
    for texts in _slices(rows, dialect):
        row = _rows([literal(text) for text in texts], ",", "NULL")
        written = _join(pa.scalar("(", LARGE), row, pa.scalar("),", LARGE), pa.scalar("", LARGE))
        for piece in _pieces(written, most_bytes):
            # Without the last comma.
            yield bytes(piece[:-1])


def lines(rows: NamedRows, most_bytes: int, dialect: Dialect) -> Iterator[memoryview]:
    """Yield the rows as lines of `LINES`, in pieces as `value_lists` does; bytes are in hexadecimal digits.

    Raises:
        DataError: a column holds a value that MySQL has no form for.
    """
    for texts in _slices(rows, dialect):
        row = _rows([_field(text) for text in texts], "\t", "\\N")
        yield from _pieces(_join(row, pa.scalar("\n", LARGE), pa.scalar("", LARGE)), most_bytes)


def conditions(rows: NamedRows, dialect: Dialect) -> Iterator[bytes]:
    """Yield conditions that together are true of the target's rows whose columns hold one of these rows' values.

    Raises:
        DataError: a column holds a value that MySQL has no form for.
    """
    for texts in _slices(rows, dialect):
        literals = [literal(text) for text in texts]
        for start in range(0, len(literals[0]), CONDITION_ROWS):
            yield condition(rows.names, [each.slice(start, CONDITION_ROWS) for each in literals]).encode()


def condition(names: Sequence[str], literals: Sequence[pa.Array]) -> str:
    """Write the condition for rows whose columns hold one of the values that are written so."""
    if len(literals) == 1:
        return f"{names[0]} IN ({','.join(literals[0].to_pylist())})"
    # Not (a, b) IN ((…), (…)): of a single pair MariaDB makes a search through the whole table.
    parts: list[Any] = []
    for name, values in zip(names, literals, strict=True):
        parts += [pa.scalar(f"{' AND ' if parts else ''}{name} = ", LARGE), values]
    return " OR ".join(_join(*parts, pa.scalar("", LARGE)).to_pylist())


def literal(text: ColumnText) -> pa.Array:
    """Write a column's values as SQL."""
    match text.form:
        case Form.NUMBER:
            return text.values
        case Form.PLAIN:
            return _wrapped("'", text.values, "'")
        case Form.TEXT:
            return _wrapped("'", _escaped(text.values, QUOTES), "'")
        case Form.HEX:
            return _wrapped("x'", text.values, "'")


def _slices(rows: NamedRows, dialect: Dialect) -> Iterator[list[ColumnText]]:
    arrays = [joined(column) for column in rows.values]
    step = max(1, rows.count * SLICE_BYTES // max(sum(array.nbytes for array in arrays), 1))
    for start in range(0, rows.count, step):
        yield [
            column_text(rows.table, column, array.slice(start, step), dialect)
            for column, array in zip(rows.columns, arrays, strict=True)
        ]


def _rows(fields: list[pa.Array], separator: str, null: str) -> pa.Array:
    if len(fields) == 1:
        return pc.fill_null(fields[0], null)
    return pc.binary_join_element_wise(
        *fields, pa.scalar(separator, LARGE), null_handling="replace", null_replacement=null
    )


def _join(*parts: Any) -> pa.Array:
    return pc.binary_join_element_wise(*parts, null_handling="emit_null")


def _pieces(rows: pa.Array, most_bytes: int) -> Iterator[memoryview]:
    _, offset_buffer, data = rows.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[rows.offset : rows.offset + len(rows) + 1]
    written, start = memoryview(data or b""), 0
    while start < len(rows):
        end = int(np.searchsorted(offsets, offsets[start] + most_bytes, side="right")) - 1
        end = max(end, start + 1)
        yield written[offsets[start] : offsets[end]]
        start = end


def _field(text: ColumnText) -> pa.Array:
    return _escaped(text.values, SEPARATORS) if text.form is Form.TEXT else text.values


QUOTES: Final = ("\\", "'")
SEPARATORS: Final = ("\\", "\t", "\n")


def _escaped(values: pa.Array, special: Sequence[str]) -> pa.Array:
    r"""Put `\` before what has a meaning: `\` itself comes first."""
    bytes_ = content(values)
    for character in special:
        if bool((bytes_ == ord(character)).any()):
            values = pc.replace_substring(values, character, "\\" + character)
    return values


def _wrapped(before: str, values: pa.Array, after: str) -> pa.Array:
    return _join(pa.scalar(before, LARGE), values, pa.scalar(after, LARGE), pa.scalar("", LARGE))
