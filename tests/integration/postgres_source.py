"""Making PostgreSQL sources on test databases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from cdcrep.connector import Chunk, Copied, Pipeline
from cdcrep.selection import Selection
from cdcrep.table import Table
from cdcrep_connectors.postgres.options import SourceOptions
from cdcrep_connectors.postgres.snapshot import PostgresSnapshot
from cdcrep_connectors.postgres.source import PostgresSource
from tests.servers.database import Database


@contextmanager
def source(
    database: Database,
    *include: str,
    exclude: Sequence[str] = (),
    url: str | None = None,
    **options: Any,
) -> Iterator[PostgresSource]:
    """Open a source whose slot and publication carry the database's name."""
    pipeline = Pipeline(database.name, Selection(include or ("public.*",), tuple(exclude)))
    opened = PostgresSource(pipeline, SourceOptions(url=url or database.url, **options))
    try:
        yield opened
    finally:
        opened.close()


def fatal(opened: PostgresSource) -> Mapping[str, str]:
    """Return what stands in the way and the hint that removes it."""
    return {obstacle.what: obstacle.hint for obstacle in opened.obstacles() if obstacle.fatal}


def rows(snapshot: PostgresSnapshot, chunk: Chunk) -> list[tuple[Any, ...]]:
    """Read a chunk's rows as text, NULL as None."""
    text = b"".join(snapshot.read(chunk)["pgcopy-text"]()).decode()
    return [tuple(None if v == "\\N" else v for v in line.split("\t")) for line in text.splitlines()]


def all_rows(snapshot: PostgresSnapshot, table: Table, copied: Copied | None = None) -> list[tuple[Any, ...]]:
    """Read every chunk's rows as text."""
    return [row for chunk in snapshot.chunks(table, copied) for row in rows(snapshot, chunk)]


def arrow_rows(snapshot: PostgresSnapshot, table: Table) -> pa.Table:
    """Read a table of one chunk as Arrow."""
    (chunk,) = snapshot.chunks(table, None)
    return pa.Table.from_batches(list(snapshot.read(chunk)["arrow"]()))
