"""Reads from the target for people: the pipeline's status, and ad-hoc queries at one exact commit."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv

from cdcrep.connector import Answer
from cdcrep_connectors.postgres.session import Session

ARROW_TYPES: Final = {
    16: pa.bool_(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    700: pa.float32(),
    701: pa.float64(),
}
"""Type OID -> Arrow type of a query's result; every other type comes in its text form."""


def read_status(session: Session, pipeline: str) -> Mapping[str, Any]:
    """Return what `Sink.status` promises; empty where the pipeline is unknown."""
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    found = session.fetch(
        "SELECT position, epoch, owner, source, extract(epoch FROM commit_time)::float8, transactions, rows, "
        "extract(epoch FROM updated_at)::float8 FROM cdcrep.checkpoints WHERE pipeline = $1",
        pipeline,
    )
    tables = session.fetch(
        "SELECT t.table_schema || '.' || t.table_name, coalesce(sum(c.rows), 0)::bigint, t.changes, t.copy_done "
        "FROM cdcrep.tables t LEFT JOIN cdcrep.chunks c USING (pipeline, table_schema, table_name) "
        "WHERE t.pipeline = $1 GROUP BY t.pipeline, t.table_schema, t.table_name ORDER BY 1",
        pipeline,
    )
    session.execute("COMMIT")
    if not found:
        return {}
    names = ("position", "epoch", "owner", "source", "commit_time", "transactions", "rows", "updated_at")
    counts = {
        name: {"rows_copied": rows, "changes_applied": changes, "copy_done": done}
        for name, rows, changes, done in tables
    }
    return {**dict(zip(names, found[0], strict=True)), "tables": counts}


def answer(session: Session, pipeline: str, sql: str) -> Answer:
    """Run one query and read the position that its rows show, in one snapshot."""
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    found = session.fetch(
        "SELECT position, extract(epoch FROM commit_time)::float8 FROM cdcrep.checkpoints WHERE pipeline = $1", pipeline
    )
    position, commit_time = found[0] if found else (None, None)
    query = sql.strip().rstrip(";")
    description = session.execute(f"SELECT * FROM ({query}\n) query LIMIT 0").description or ()
    types = [ARROW_TYPES.get(column.type_code, pa.string()) for column in description]
    names = [column.name for column in description]
    text = io.BytesIO()
    with session.cursor.copy(f"COPY ({query}\n) TO STDOUT (FORMAT csv, FORCE_QUOTE *)".encode()) as copy:
        for piece in copy:
            text.write(piece)
    session.execute("COMMIT")
    return Answer(_read_csv(text, names, types), position, commit_time)


def _read_csv(text: io.BytesIO, names: list[str], types: list[pa.DataType]) -> pa.Table:
    if not text.tell():
        return pa.table([pa.array([], kind) for kind in types], names=names)
    text.seek(0)
    # A query may name two columns alike; the reader of CSV may not.
    unique = [f"c{i}" for i in range(len(names))]
    table = pyarrow.csv.read_csv(
        text,
        read_options=pyarrow.csv.ReadOptions(column_names=unique, block_size=64 << 20),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict(zip(unique, types, strict=True)),
            null_values=[""],
            strings_can_be_null=True,
            # FORCE_QUOTE quotes every value but NULL.
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )
    return table.rename_columns(names)
