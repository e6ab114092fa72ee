"""Looks tables, their columns and their keys up in the source's information schema."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from cdcrep.errors import CdcrepError, DataError, SetupError
from cdcrep.table import Column, Table, TableId
from cdcrep_connectors.mysql.column_codecs import codec_for
from cdcrep_connectors.mysql.connection import Connection, is_mariadb
from cdcrep_connectors.mysql.described_tables import native_text
from cdcrep_connectors.mysql.failures import DRIVER_ERRORS, translate
from cdcrep_connectors.mysql.indirect import find_ways
from cdcrep_connectors.mysql.table_map import TableMap, WireColumn
from cdcrep_connectors.mysql.types import DIALECT, WITH_DATES, ImpossibleDates, column_type

SYSTEM: Final = "('mysql', 'information_schema', 'performance_schema', 'sys')"

TABLES: Final = f"""
SELECT table_schema, table_name, table_type, engine, coalesce(table_rows, 0), coalesce(data_length, 0)
FROM information_schema.tables WHERE table_schema NOT IN {SYSTEM} ORDER BY table_schema, table_name
"""

NAMES: Final = f"""
SELECT table_schema, table_name FROM information_schema.tables
WHERE table_schema NOT IN {SYSTEM} AND table_type = 'BASE TABLE'
"""

COLUMNS: Final = """
SELECT column_name, column_type, character_set_name, is_nullable, extra FROM information_schema.columns
WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position
"""

# A key that covers only the beginning of a column does not identify rows by the column's value.
KEY: Final = """
SELECT column_name, sub_part FROM information_schema.statistics
WHERE table_schema = %s AND table_name = %s AND index_name = 'PRIMARY' ORDER BY seq_in_index
"""


@dataclass(frozen=True)
class Relation:
    """Something in the catalogue that can be read like a table."""

    id: TableId
    kind: str
    """`BASE TABLE`, `VIEW`, `SYSTEM VERSIONED`, `SEQUENCE`."""
    engine: str
    rows: int
    """Estimate."""
    size: int
    """Estimate of bytes."""


@dataclass(frozen=True)
class Described:
    """A relation with its shape, or with the reason why it has none."""

    relation: Relation
    table: Table | None
    problem: str = ""


class Catalog:
    """Looks things up on one connection; a lock lets one thread at a time."""

    def __init__(self, connection: Connection, dates: ImpossibleDates = ImpossibleDates.REFUSE) -> None:
        self._connection = connection
        self._dates = dates
        self._lock = threading.Lock()
        self.is_mariadb = is_mariadb(connection)

    def relations(self) -> list[Relation]:
        """List everything in user schemas that resembles a table, sorted by name."""
        return [
            Relation(TableId(str(schema), str(name)), str(kind).upper(), str(engine or ""), int(rows), int(size))
            for schema, name, kind, engine, rows, size in self.fetch(TABLES)
        ]

    def names(self) -> set[TableId]:
        """Return the names of all tables, quickly."""
        return {TableId(str(schema), str(name)) for schema, name in self.fetch(NAMES)}

    def describe(self, relation: Relation) -> Described:
        """Read a relation's shape."""
        try:
            return Described(relation, self.table(relation.id))
        except CdcrepError as error:
            return Described(relation, None, error.message)

    def table(self, id_: TableId) -> Table | None:
        """Return a table's present shape; None where there is no such table.

        Raises:
            SetupError: a column's type is not supported.
        """
        rows = self.fetch(COLUMNS, id_.schema, id_.name)
        if not rows:
            return None
        columns = []
        for name, native, charset, nullable, _ in rows:
            written = f"{native} character set {charset}" if charset else str(native)
            try:
                type_ = column_type(written, self._dates)
            except (SetupError, DataError) as error:
                raise SetupError(f"column {name!r} of {id_}: {error.message}", hint=error.hint) from None
            columns.append(Column(str(name), type_, str(nullable).upper() == "YES"))
        parts = self.fetch(KEY, id_.schema, id_.name)
        names = set() if any(part is not None for _, part in parts) else {str(name) for name, _ in parts}
        key = tuple(column.name for column in columns if column.name in names)
        return self._table(id_, columns, key)

    def table_of(self, seen: TableMap) -> Table:
        """Return the shape that a TABLE_MAP describes, which may be older than the catalogue's.

        What the log does not say, or not exactly, comes from the catalogue: all with `binlog_row_metadata` MINIMAL,
        on MariaDB which columns are UUID, INET4, INET6.

        Raises:
            SetupError: a type is not supported.
            DataError: neither the log nor the catalogue knows the columns.
        """
        id_ = TableId(seen.schema, seen.name)
        now = self.table(id_)
        if any(column.name is None for column in seen.columns):
            if now is None:
                raise DataError(
                    f"{id_}: the table does not exist any more and the log does not say what its columns were",
                    hint="SET GLOBAL binlog_row_metadata = FULL",
                )
            return now
        known = {column.name: column for column in now.columns} if now else {}
        columns = [self._column(wire, known.get(str(wire.name))) for wire in seen.columns]
        whole = not any(seen.primary_key_prefixes)
        key = sorted(seen.primary_key or ()) if whole else []
        return self._table(id_, columns, tuple(columns[i].name for i in key))

    def ways(self, followed: Collection[TableId]) -> frozenset[TableId]:
        """Return what statements may change followed tables through without naming them (`indirect`)."""
        return find_ways(self.fetch, followed)

    def fetch(self, statement: str, *values: Any) -> Sequence[tuple[Any, ...]]:
        """Return a query's rows; thread-safe."""
        try:
            with self._lock, self._connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return list(cursor.fetchall())
        except DRIVER_ERRORS as error:
            raise translate(error, "reading the source's catalogue") from error

    def _table(self, id_: TableId, columns: Sequence[Column], key: tuple[str, ...]) -> Table:
        """Make a table; what may become NULL on the way can be NULL, but for the key."""
        if self._dates is ImpossibleDates.NULL:
            columns = [
                replace(column, nullable=True) if column.type.kind in WITH_DATES and column.name not in key else column
                for column in columns
            ]
        return Table(id_.schema, id_.name, tuple(columns), key, DIALECT)

    def _column(self, wire: WireColumn, known: Column | None) -> Column:
        """Make the column that the log describes: the catalogue's if rows of that layout may be of its type."""
        if known is not None:
            try:
                codec_for(wire, known, self._dates)
            except DataError:
                pass
            else:
                return replace(known, nullable=wire.nullable)
        return Column(str(wire.name), column_type(native_text(wire), self._dates), wire.nullable)
