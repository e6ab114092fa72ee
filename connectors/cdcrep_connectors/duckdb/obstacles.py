"""Everything that stands between the configuration and replication into a DuckDB file, found without a change to it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

import duckdb

from cdcrep.connector import Obstacle, Pipeline
from cdcrep.table import Table
from cdcrep_connectors.duckdb import shape, types
from cdcrep_connectors.duckdb.bookkeeping import Bookkeeping
from cdcrep_connectors.duckdb.options import DuckDBOptions

LITTLE_SPACE: Final = 64 << 20

RESERVED: Final = frozenset({"cdcrep", "information_schema", "pg_catalog", "temp", "system"})
"""Schemas of a DuckDB file that cannot hold copies."""


def of_path(options: DuckDBOptions) -> list[Obstacle]:
    """Look at the directory and the file's name."""
    path = options.path
    if path.stem.partition(".")[0].lower() == "cdcrep":
        return [
            Obstacle(
                f"the file {path} is called like the schema of the bookkeeping: DuckDB cannot tell them apart",
                "choose another file name in the target's url",
            )
        ]
    if not path.parent.is_dir():
        return [Obstacle(f"directory {path.parent} does not exist", f"mkdir -p {path.parent}")]
    subject = path if path.exists() else path.parent
    if not (os.access(subject, os.W_OK) and os.access(path.parent, os.W_OK)):
        return [Obstacle(f"{subject} is not writable for this user", f"chown {os.geteuid()} {subject}")]
    space = os.statvfs(path.parent)
    if space.f_bavail * space.f_frsize < LITTLE_SPACE:
        return [
            Obstacle(f"less than {LITTLE_SPACE >> 20} MB are free in {path.parent}", "free space there", fatal=False)
        ]
    return []


def of_names(tables: Sequence[Table]) -> list[Obstacle]:
    """Look for names that DuckDB, which ignores case, cannot hold or tell apart."""
    found: list[Obstacle] = []
    seen: dict[tuple[str, str], Table] = {}
    for table in tables:
        if table.schema.lower() in RESERVED:
            found.append(Obstacle(f"{table.id}: DuckDB reserves the schema {table.schema!r}", _exclude(table)))
        if not table.columns:
            found.append(Obstacle(f"{table.id}: DuckDB cannot hold a table without columns", _exclude(table)))
        twin = seen.setdefault((table.schema.lower(), table.name.lower()), table)
        if twin is not table:
            found.append(
                Obstacle(f"{table.id} and {twin.id} are one name in DuckDB, which ignores case", _exclude(table))
            )
        columns: dict[str, str] = {}
        for column in table.columns:
            other = columns.setdefault(column.name.lower(), column.name)
            if other != column.name:
                found.append(
                    Obstacle(
                        f"{table.id}: columns {other!r} and {column.name!r} are one name in DuckDB, which ignores case",
                        _exclude(table),
                    )
                )
    return found


def of_types(table: Table, pipeline: Pipeline, options: DuckDBOptions) -> Iterator[Obstacle]:
    """Look for column types that DuckDB can only hold with loss."""
    for column in table.columns:
        lossy = types.exactness(column.type) == "lossy"
        if lossy and types.column_type(table, column, options.as_text) != types.TEXT and not pipeline.allow_lossy:
            yield Obstacle(
                f"{table.id}: column {column.name!r}: DuckDB holds {column.type.native} only with loss",
                f'add as_text = ["{table.id}.{column.name}"] to [target], or allow_lossy = true',
            )


def of_existing(
    connection: duckdb.DuckDBPyConnection, book: Bookkeeping, table: Table, pipeline: Pipeline, options: DuckDBOptions
) -> Iterator[Obstacle]:
    """Compare with a table of that name in the file."""
    existing = shape.existing_columns(connection, table.id)
    if not existing or is_ours(connection, book, table):
        return
    for what, hint in shape.differences(table, existing, options.as_text):
        yield Obstacle(what, hint)
    have = {name.lower() for name in existing}
    if pipeline.on_existing != "replace":
        for column in table.columns:
            if column.name.lower() not in have:
                yield Obstacle(
                    f"{table.id}: column {column.name!r} will be added to the existing target table", fatal=False
                )
    if pipeline.on_existing == "refuse" and shape.has_rows(connection, book.catalog, table.id):
        yield Obstacle(
            f"{table.id}: the target table exists and holds rows",
            'set on_existing = "replace" to empty it or "keep" to copy into it',
        )


def is_ours(connection: duckdb.DuckDBPyConnection, book: Bookkeeping, table: Table) -> bool:
    """Tell whether this pipeline copied rows into the table before."""
    return book.exists(connection) and table.id in book.read(connection).tables


def _exclude(table: Table) -> str:
    return f'add "{table.id}" to exclude in [tables]'
