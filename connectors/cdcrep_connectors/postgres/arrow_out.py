r"""Reads rows as Arrow: in typed columns (`copy_binary`), or all values in the text form that the stream carries, too.

Text is split by Arrow's CSV reader. The CSV form is used with bytes that hardly occur in text as delimiter and quote,
so that almost nothing is quoted. The server quotes every value that could be taken for something else: one that holds
these bytes or a line's end, and `\N` where it is no null.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv

from cdcrep.errors import DataError
from cdcrep.table import Table
from cdcrep_connectors.postgres.connection import Connection
from cdcrep_connectors.postgres.copy_binary import Decoder, Wire
from cdcrep_connectors.postgres.copy_out import Piece, copy_fields, copy_rows

DELIMITER: Final = b"\x02"
QUOTE: Final = b"\x01"
NULL: Final = r"\N"

LEAD: Final = b"cdcr" + DELIMITER
"""Written over the header of each row's message: a first column, which is not read. Nothing has to be cut out."""

OPTIONS: Final = f"FORMAT csv, DELIMITER E'\\x{DELIMITER.hex()}', QUOTE E'\\x{QUOTE.hex()}', NULL E'\\\\N'"

PIECE: Final = 512 << 10
"""Bytes that become one batch. Measured: 2 MiB cost 60 MiB of resident memory more and a little time, for caches."""


def arrow_out(connection: Connection, table: Table, rows: str, columns: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `SELECT columns FROM … WHERE …` with all values in their text form.

    Raises:
        psycopg.Error: the server refused, or the connection was lost.
        DataError: text is not valid in the encoding that the server claims.
    """
    if not table.columns:
        (count,) = connection.execute(f"SELECT count(*) {rows}".encode()).fetchall()[0]
        yield pa.RecordBatch.from_struct_array(pa.array([{}] * count, pa.struct([])))
        return
    names = [column.name for column in table.columns]
    for piece in copy_rows(connection, f"COPY (SELECT {columns} {rows}) TO STDOUT ({OPTIONS})", LEAD, PIECE):
        yield _split(piece, table, names)


def typed_arrow_out(connection: Connection, table: Table, rows: str, wires: Sequence[Wire]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `SELECT … FROM … WHERE …`, each of the table's columns as its wire says.

    Raises:
        psycopg.Error: the server refused, or the connection was lost.
        DataError: text is not valid in the encoding that the server claims, or a time has no place in Arrow's type.
    """
    decoder = Decoder(table, wires)
    selected = ", ".join(wire.select(column) for wire, column in zip(wires, table.columns, strict=True))
    statement = f"COPY (SELECT {selected} {rows}) TO STDOUT (FORMAT binary)"
    for some in copy_fields(connection, statement, len(wires), PIECE):
        yield decoder.batch(some.buffer, some.start, some.end)


def _split(piece: Piece, table: Table, names: Sequence[str]) -> pa.RecordBatch:
    """Make a batch of some whole rows."""
    wanted = [f"c{i}" for i in range(len(names))]
    try:
        split = pyarrow.csv.read_csv(
            pa.BufferReader(pa.py_buffer(piece)),
            pyarrow.csv.ReadOptions(use_threads=False, block_size=len(piece) + 1, column_names=["lead", *wanted]),
            pyarrow.csv.ParseOptions(
                delimiter=DELIMITER.decode(),
                quote_char=QUOTE.decode(),
                double_quote=True,
                escape_char=False,
                newlines_in_values=bool((np.frombuffer(piece, np.uint8) == QUOTE[0]).any()),
                ignore_empty_lines=False,
            ),
            pyarrow.csv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(wanted, pa.string()),
                null_values=[NULL],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        # Not chained: Arrow's message quotes the values.
        raise DataError(
            f"{table.id}: rows cannot be split into columns: a text value is not valid UTF-8",
            hint="SHOW server_encoding at the source: SQL_ASCII lets anything in; correct the values there",
        ) from None
    return pa.RecordBatch.from_arrays([column.combine_chunks() for column in split.columns], names)
