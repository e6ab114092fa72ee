"""Reads rows as Arrow through ADBC, so that every value is the one that the stream would carry.

The driver decodes COPY's binary form in C. What it is trusted with, and why (tried with the extremes of each type):

    boolean, int2/4/8, float4/8, text, varchar, char(n), bytea    exact
    numeric           comes as text, digit for digit; only NaN and infinities are spelt otherwise: put right here
    json, jsonb       come as the text itself
    date, timestamp, timestamptz, time
                      exact within the years 1 to 9999 and before 24:00; the driver lets infinities and far dates
                      overflow, so a chunk is first searched for them: where one is, that column comes as text
    all others        as text, written by the type's output function
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_postgresql import dbapi

from cdcrep.errors import TransientError
from cdcrep.table import Column, Kind, Table
from cdcrep_connectors.postgres.connection import connection_string
from cdcrep_connectors.postgres.options import SourceOptions
from cdcrep_connectors.postgres.publication import quoted

Rows = list[tuple[Any, ...]]

READER_SETTINGS: Final[Mapping[str, str]] = {
    "default_transaction_isolation": "repeatable\\ read",
    "default_transaction_read_only": "on",
}
"""For sessions that import a snapshot with their first statement."""

TYPED: Final = frozenset(
    {
        *(Kind.BOOL, Kind.INT16, Kind.INT32, Kind.INT64, Kind.FLOAT32, Kind.FLOAT64),
        *(Kind.DECIMAL, Kind.TEXT, Kind.BYTES, Kind.JSON),
    }
)

ORDINARY: Final[Mapping[Kind, str]] = {
    Kind.DATE: "BETWEEN '0001-01-01' AND '9999-12-31'",
    Kind.TIMESTAMP: "BETWEEN '0001-01-01' AND '9999-12-31 23:59:59.999999'",
    Kind.TIMESTAMPTZ: "BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'",
    Kind.TIME: "< '24:00'",
}
"""Values for which the typed form is the same value in every target."""

BATCH_BYTES: Final = 4 << 20


def arrow_out(
    options: SourceOptions,
    application_name: str,
    table: Table,
    rows: str,
    enter: Callable[[Callable[[str], Rows]], None],
    *,
    lock_timeout: float,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `FROM … WHERE …` on a session of its own, after `enter` has begun its transaction.

    Raises:
        adbc_driver_manager.dbapi.Error: the server refused, or the connection was lost.
    """
    settings = {**READER_SETTINGS, "lock_timeout": str(round(lock_timeout * 1000)), "statement_timeout": "0"}
    uri = connection_string(options, application_name, settings)
    with closing(dbapi.connect(uri)) as connection, closing(connection.cursor()) as cursor:

        def run(statement: str) -> Rows:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

        enter(run)
        if not table.columns:
            yield _rows_without_columns(run(f"SELECT count(*) {rows}")[0][0])
            return
        typed = _typed_columns(table.columns, rows, run)
        listed = ", ".join(
            quoted(column.name) if column.name in typed else as_text(quoted(column.name)) for column in table.columns
        )
        cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)})
        cursor.execute(f"SELECT {listed} {rows}")
        names = [column.name for column in table.columns]
        with cursor.fetch_record_batch() as reader:
            while (batch := _next(reader, table)) is not None:
                yield pa.RecordBatch.from_arrays(
                    [_plain(array, column) for array, column in zip(batch.columns, table.columns, strict=True)], names
                )


def _next(reader: pa.RecordBatchReader, table: Table) -> pa.RecordBatch | None:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None
    except (OSError, pa.ArrowException):
        # Arrow's stream interface passes on neither SQLSTATE nor a message that is free of values: no cause, no text.
        raise TransientError(f"copying {table.id}: the server or the connection failed while rows were read") from None


def as_text(column: str) -> str:
    """Write SQL for a column's text as its output function makes it; casts to text of some types differ from that."""
    return f"CASE WHEN {column} IS DISTINCT FROM NULL THEN format('%s', {column}) END"


def _typed_columns(columns: Sequence[Column], rows: str, run: Callable[[str], Rows]) -> set[str]:
    """Name the columns that are read in their own type."""
    # A domain or "char" is another type on the wire than the one that it is made of.
    plain = [column for column in columns if column.type.user_type is None and column.type.native != '"char"']
    typed = {column.name for column in plain if column.type.kind in TYPED}
    temporal = [column for column in plain if column.type.kind in ORDINARY]
    if temporal:
        tests = (f"bool_or(NOT {quoted(column.name)} {ORDINARY[column.type.kind]})" for column in temporal)
        (extreme,) = run(f"SELECT {', '.join(tests)} {rows}")
        typed |= {column.name for column, found in zip(temporal, extreme, strict=True) if not found}
    return typed


def _plain(array: pa.Array, column: Column) -> pa.Array:
    """Strip the driver's annotations, and spell numbers that are none as PostgreSQL does."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if column.type.kind is Kind.DECIMAL and pa.types.is_string(array.type) and _has_letters(array):
        for theirs, ours in (("nan", "NaN"), ("inf", "Infinity"), ("-inf", "-Infinity")):
            array = pc.if_else(pc.equal(array, theirs), ours, array)
    return array


def _has_letters(array: pa.Array) -> bool:
    _, offsets, data = array.buffers()
    if data is None or not len(array):
        return False
    bounds = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return bool((np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]] > ord("9")).any())


def _rows_without_columns(count: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_struct_array(pa.array([{}] * count, pa.struct([])))
