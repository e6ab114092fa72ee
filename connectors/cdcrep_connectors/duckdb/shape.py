"""Target tables: making them, comparing them with the source's shape, growing them by new columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from cdcrep.errors import SetupError
from cdcrep.table import Column, Table, TableId
from cdcrep_connectors.duckdb.bookkeeping import Bookkeeping
from cdcrep_connectors.duckdb.statements import first_row
from cdcrep_connectors.duckdb.types import column_type, duckdb_type
from cdcrep_connectors.relational.recovery import copy_again


@dataclass(frozen=True)
class Target:
    """A target table that is known to fit a source table's shape."""

    table: Table
    name: str
    """Qualified and quoted."""
    types: tuple[str, ...]
    """DuckDB types of the source table's columns, in their order."""
    own: tuple[str, ...] = ()
    """Columns that the source does not have; their values are carried along."""

    @property
    def has_own_types(self) -> bool:
        """Whether every column is of the type that DuckDB has for it, none is kept as text or was made by others."""
        kinds = (column.type for column in self.table.columns)
        return all(duckdb_type(kind) == type_ for kind, type_ in zip(kinds, self.types, strict=True))


def quote(name: str) -> str:
    """Quote an identifier."""
    if "\0" in name:
        raise SetupError(f"the name {name!r} contains a NUL character, which DuckDB cannot hold")
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def qualified(catalog: str, table: TableId) -> str:
    """Return a table's full name, given DuckDB's quoted name for the file: a schema may be called like it."""
    return f"{catalog}.{quote(table.schema)}.{quote(table.name)}"


def existing_columns(connection: DuckDBPyConnection, table: TableId) -> dict[str, str]:
    """Return names and types of a target table's columns in order; empty: there is no such table."""
    found = connection.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database() "
        "AND lower(schema_name) = lower($1) AND lower(table_name) = lower($2) AND NOT is_generated "
        "ORDER BY column_index",
        [table.schema, table.name],
    ).fetchall()
    return dict(found)


def has_rows(connection: DuckDBPyConnection, catalog: str, table: TableId) -> bool:
    """Tell whether an existing target table holds a row."""
    return first_row(connection, f"SELECT 1 FROM {qualified(catalog, table)} LIMIT 1") is not None


def estimated_rows(connection: DuckDBPyConnection, table: TableId) -> int:
    """Return about how many rows a target table holds."""
    row = first_row(
        connection,
        "SELECT estimated_size FROM duckdb_tables() WHERE database_name = current_database() "
        "AND lower(schema_name) = lower($1) AND lower(table_name) = lower($2)",
        [table.schema, table.name],
    )
    return int(row[0]) if row else 0


def create(connection: DuckDBPyConnection, book: Bookkeeping, table: Table, as_text: Sequence[str]) -> None:
    """Create a target table and its schema."""
    # Without a primary key: see docs/decisions/0001-duckdb-tables-without-primary-key.md.
    columns = ", ".join(f"{quote(column.name)} {column_type(table, column, as_text)}" for column in table.columns)
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {book.catalog}.{quote(table.schema)}")
    connection.execute(f"CREATE TABLE {qualified(book.catalog, table.id)} ({columns})")
    book.remember_shape(connection, table)


def fit(connection: DuckDBPyConnection, book: Bookkeeping, table: Table, as_text: Sequence[str]) -> Target:
    """Return the target of a source table, grown by new nullable columns; raise where the shapes differ otherwise."""
    existing = existing_columns(connection, table.id)
    if not existing:
        raise SetupError(
            f"{table.id}: the target table does not exist", hint="start again: a table that is gone is copied anew"
        )
    known = book.shape_of(connection, table.id)
    if known is not None:
        _check_change(table, *known)
    _check_types(table, existing, as_text)
    folded = {name.lower() for name in existing}
    for column in table.columns:
        if column.name.lower() not in folded:
            _add(connection, book.catalog, table, column, as_text)
    if known is None or list(known[0]) != [column.name for column in table.columns]:
        book.remember_shape(connection, table)
    source = {column.name.lower() for column in table.columns}
    return Target(
        table,
        qualified(book.catalog, table.id),
        tuple(column_type(table, column, as_text) for column in table.columns),
        tuple(name for name in existing if name.lower() not in source),
    )


def differences(table: Table, existing: dict[str, str], as_text: Sequence[str]) -> list[tuple[str, str]]:
    """List what is wrong with an existing target table's columns for a source table, with what to type."""
    types = {name.lower(): found for name, found in existing.items()}
    wrong = []
    for column in table.columns:
        wanted, found = column_type(table, column, as_text), types.get(column.name.lower())
        if found is not None and found != wanted:
            change = f"ALTER TABLE {quote(table.schema)}.{quote(table.name)} ALTER {quote(column.name)} TYPE {wanted}"
            wrong.append((f"{table.id}: column {column.name!r} is {found} in the target, needed is {wanted}", change))
    return wrong


def _check_change(table: Table, types: Mapping[str, str], key: Sequence[str]) -> None:
    """Compare a source table with its shape as last remembered."""
    now = {column.name: column.type.native for column in table.columns}
    gone = [name for name in types if name not in now]
    changed = [name for name in types if name in now and now[name] != types[name]]
    what = ""
    if gone:
        what = f"column {gone[0]!r} was dropped or renamed at the source"
    elif changed:
        # Also where DuckDB holds both types alike: the source has rewritten its rows without sending them.
        what = f"column {changed[0]!r} changed its type at the source from {types[changed[0]]} to {now[changed[0]]}"
    elif list(key) != list(table.key):
        what = f"rows are identified by ({', '.join(table.key)}) now, it was ({', '.join(key)})"
    if what:
        raise SetupError(f"{table.id}: {what}", hint=copy_again(table.id))


def _check_types(table: Table, existing: dict[str, str], as_text: Sequence[str]) -> None:
    for what, hint in differences(table, existing, as_text):
        raise SetupError(what, hint=hint)


def _add(connection: DuckDBPyConnection, catalog: str, table: Table, column: Column, as_text: Sequence[str]) -> None:
    declared = f"{quote(column.name)} {column_type(table, column, as_text)}"
    if not column.nullable:
        raise SetupError(
            f"{table.id}: the source has a new column {column.name!r} that is not nullable or has a default: rows "
            "copied before lack its values",
            hint=copy_again(table.id),
        )
    connection.execute(f"ALTER TABLE {qualified(catalog, table.id)} ADD COLUMN {declared}")
