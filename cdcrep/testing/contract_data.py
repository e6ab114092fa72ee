"""What the contract suites are made of: adapters that authors write, tables, and short ways to write changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import pyarrow as pa

from cdcrep.changes import Batch
from cdcrep.connector import Chunk, Copied, Pipeline, Sink, Source, Stream
from cdcrep.position import Position
from cdcrep.selection import Selection
from cdcrep.table import Column, ColumnType, Kind, Table
from cdcrep.testing.memory_source import columnar
from cdcrep.testing.memory_tables import Row, RowChange, Statement

TEXT = ColumnType(Kind.TEXT, "text")
INT = ColumnType(Kind.INT64, "bigint")
LONG = "long " * 2000
"""A value that a database with out-of-line storage does not log again when it stays as it was."""
FIRST = Position("contract/0000")


class Target(Protocol):
    """How the suites reach a sink's database; each test gets a fresh, empty one."""

    def sink(self, pipeline: Pipeline) -> Sink:
        """Construct a sink on the database; several may be alive at once."""
        ...

    def rows(self, table: Table) -> list[Row]:
        """Read a table as committed, in any order, all columns in the table's order, every value as text or None."""
        ...

    def execute(self, statement: str) -> None:
        """Run SQL as another user of the database would; a target without SQL raises NotImplementedError."""
        ...

    def drop(self, table: Table) -> None:
        """Drop a table as somebody does who wants it copied anew."""
        ...

    def close(self) -> None:
        """Release what the adapter itself holds."""
        ...


class Origin(Protocol):
    """How the suites reach a source's database; each test gets a fresh one."""

    def source(self, pipeline: Pipeline) -> Source:
        """Construct a source on the database."""
        ...

    def create(self, table: Table, unsent: Sequence[str] = ()) -> None:
        """Create a table of text and bigint columns.

        Updates should not log unchanged values of the columns `unsent`, if the database can leave any out.
        """
        ...

    def commit(self, *statements: Statement) -> None:
        """Run statements in one transaction."""
        ...

    def roll_back(self, *statements: Statement) -> None:
        """Run statements in one transaction that is rolled back."""
        ...

    def rows(self, table: Table) -> list[Row]:
        """Read a table in any order, every value as text or None."""
        ...

    def foreign_position(self, position: Position) -> Position:
        """Turn a position into one of another server, otherwise alike."""
        ...

    def close(self) -> None:
        """Drop what the tests left behind at the server (slots)."""
        ...


def pipeline(name: str = "contract", **settings: object) -> Pipeline:
    """Describe a pipeline over all tables."""
    return Pipeline(name, Selection(("*",)), **settings)  # type: ignore[arg-type]  # a test's own settings


def table(name: str, key: Sequence[str] = ("id",), schema: str = "shop", **columns: ColumnType) -> Table:
    """Describe a table; without columns: id, note and big."""
    types = columns or {"id": INT, "note": TEXT, "big": TEXT}
    return Table(
        schema,
        name,
        tuple(Column(column, kind, nullable=column not in key) for column, kind in types.items()),
        tuple(key),
        "postgresql",
    )


def inserted(table: Table, *values: str | None) -> RowChange:
    """INSERT a row."""
    return RowChange(table, None, values)


def updated(table: Table, old: Row, new: Row, unsent: Iterable[str] = ()) -> RowChange:
    """UPDATE a row; the values of `unsent` columns are not in the change."""
    names = [column.name for column in table.columns]
    return RowChange(table, old, new, frozenset(names.index(name) for name in unsent))


def deleted(table: Table, *values: str | None) -> RowChange:
    """DELETE a row."""
    return RowChange(table, values, None)


def truncated(table: Table) -> RowChange:
    """TRUNCATE a table."""
    return RowChange(table, None, None)


def batch(number: int, *changes: RowChange, ends: bool = True) -> Batch:
    """Make a batch whose position is the `number`-th; one that does not end its transaction has none."""
    return Batch(
        position(number) if ends else None,
        tuple(columnar(changes)),
        transactions=int(ends),
        size=len(changes),
        commit_time=1_700_000_000.0 + number,
    )


def position(number: int) -> Position:
    """Name the end of the `number`-th transaction."""
    return Position(f"contract/{number:04d}")


def arrow(table: Table, rows: Sequence[Row]) -> Mapping[str, Stream]:
    """Offer rows as a snapshot does: record batches in text form."""
    columns = [pa.array([row[i] for row in rows], pa.string()) for i in range(len(table.columns))]
    names = [column.name for column in table.columns]
    return {"arrow": lambda: pa.table(columns, names=names).to_batches()}


def following(sink: Sink, rows: Mapping[Table, Sequence[Row]]) -> Sink:
    """Open a sink, give it a first copy of these tables, and return it ready to `apply`."""
    sink.open()
    sink.prepare(list(rows))
    sink.register({each.id: Copied(FIRST) for each in rows}, FIRST)
    loader = sink.loader()
    for each, values in rows.items():
        if values:
            loader.load(Chunk(each, "all"), arrow(each, values))
    loader.close()
    sink.finish([each.id for each in rows])
    return sink
