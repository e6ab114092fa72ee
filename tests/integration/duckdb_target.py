"""What the tests of the DuckDB sink share: tables, batches in text form, sinks on a fresh file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cdcrep.changes import DELETE, INSERT, UPDATE, Batch, Changes
from cdcrep.connector import Chunk, Copied, Pipeline
from cdcrep.position import Position
from cdcrep.selection import Selection
from cdcrep.table import Column, ColumnType, Kind, Table
from cdcrep_connectors.duckdb.sink import DuckDBSink

Row = Sequence[str | None]

EVERYTHING = Selection(("*",))

INT = ColumnType(Kind.INT64, "bigint")
TEXT = ColumnType(Kind.TEXT, "text")


def keyed(name: str = "items", *more: Column, schema: str = "public") -> Table:
    """Make a table with the key `id` and the column `note`."""
    return Table(schema, name, (Column("id", INT, nullable=False), Column("note", TEXT), *more), ("id",), "postgresql")


def keyless(*columns: Column) -> Table:
    """Make a table that is a multiset of rows."""
    return Table("public", "events", columns, (), "postgresql")


def text_rows(table: Table, rows: Sequence[Row]) -> pa.Table:
    """Make rows in text form."""
    columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) if rows else [() for _ in table.columns]
    return pa.table([pa.array(c, pa.string()) for c in columns], names=[column.name for column in table.columns])


def inserts(table: Table, *rows: Row) -> Changes:
    """Make INSERTs."""
    return Changes(table, np.full(len(rows), INSERT, np.uint8), text_rows(table, rows))


def updates(table: Table, *rows: Row, unchanged: Mapping[int, Sequence[bool]] | None = None) -> Changes:
    """Make UPDATEs in place."""
    masks = {i: np.array(mask) for i, mask in (unchanged or {}).items()}
    return Changes(table, np.full(len(rows), UPDATE, np.uint8), text_rows(table, rows), unchanged=masks)


def change(operation: int, table: Table, new: Row | None, old: Row | None, unchanged: Sequence[int] = ()) -> Changes:
    """Make one change; `old` holds the identity columns."""
    nothing: Row = [None] * len(table.columns)
    identity = [column.name for column in table.identity]
    before = pa.table([pa.array([v], pa.string()) for v in old], names=identity) if old is not None else None
    return Changes(
        table,
        np.array([operation], np.uint8),
        text_rows(table, [nothing if new is None else new]),
        before,
        None if old is None else np.array([True]),
        {i: np.array([True]) for i in unchanged},
    )


def deletes(table: Table, *keys: Row) -> Changes:
    """Make DELETEs."""
    nothing: Row = [None] * len(table.columns)
    old = pa.table(
        [pa.array(values, pa.string()) for values in zip(*keys, strict=True)],
        names=[column.name for column in table.identity],
    )
    operations = np.full(len(keys), DELETE, np.uint8)
    return Changes(table, operations, text_rows(table, [nothing] * len(keys)), old, np.ones(len(keys), np.bool_))


def batch(position: str | None, *changes: Changes) -> Batch:
    """Make a batch of one transaction."""
    return Batch(None if position is None else Position(position), changes, 1, 100, 1.5)


def make_sink(path: Path, pipeline: Pipeline | None = None, **options: Any) -> DuckDBSink:
    """Make a sink that is not open."""
    return DuckDBSink(pipeline or Pipeline("shop", EVERYTHING), DuckDBSink.Options(url=f"duckdb:///{path}", **options))


def open_sink(path: Path, *tables: Table, pipeline: Pipeline | None = None, **options: Any) -> DuckDBSink:
    """Open a sink with empty, completely copied tables at position 0."""
    sink = make_sink(path, pipeline, **options)
    sink.open()
    sink.prepare(tables)
    sink.register({table.id: Copied(Position("0")) for table in tables}, Position("0"))
    sink.finish([table.id for table in tables])
    return sink


def rows_of(sink: DuckDBSink, sql: str) -> list[tuple[Any, ...]]:
    """Run a query and return its rows as tuples."""
    data = sink.query(sql).data
    return list(zip(*(column.to_pylist() for column in data.columns), strict=True))


def load(sink: DuckDBSink, chunk: Chunk, *batches: pa.RecordBatch) -> tuple[int, int]:
    """Load a chunk with a loader of its own."""
    loader = sink.loader()
    try:
        return loader.load(chunk, {"arrow": lambda: list(batches)})
    finally:
        loader.close()


def write_as_owner(sink: DuckDBSink, sql: str) -> None:
    """Change the file as its owner would while the replication does not hold it."""
    with sink._database.use() as connection:  # the sink's settings forbid a second instance
        connection.execute(sql).fetchall()
