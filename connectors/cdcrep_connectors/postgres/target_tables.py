"""The target's tables as its catalogue shows them, and how they come into being and grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psycopg

from cdcrep.errors import SetupError
from cdcrep.table import Table
from cdcrep_connectors.postgres import user_types
from cdcrep_connectors.postgres.column_types import column_type
from cdcrep_connectors.postgres.session import Session
from cdcrep_connectors.relational.names import listed, qualify, quote
from cdcrep_connectors.relational.recovery import copy_again

FIND: Final = """
    SELECT c.oid, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"""

COLUMNS: Final = """
    WITH RECURSIVE plain (attnum, type, typmod) AS (
        SELECT attnum, atttypid, atttypmod FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT p.attnum, t.typbasetype, t.typtypmod FROM plain p JOIN pg_type t ON t.oid = p.type AND t.typtype = 'd'
    )
    SELECT a.attname, a.atttypid::bigint, format_type(a.atttypid, a.atttypmod), format_type(p.type, p.typmod),
        a.attgenerated <> ''
    FROM pg_attribute a JOIN plain p ON p.attnum = a.attnum JOIN pg_type t ON t.oid = p.type AND t.typtype <> 'd'
    WHERE a.attrelid = $1 ORDER BY a.attnum"""

INDEXES: Final = """
    SELECT i.indimmediate AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indisvalid,
        array(SELECT a.attname::text FROM unnest(i.indkey[0:i.indnkeyatts - 1]) k
              JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k)
    FROM pg_index i WHERE i.indrelid = $1 AND (i.indisunique OR i.indisexclusion)"""

CASCADES: Final = """
    SELECT EXISTS (
        SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = $1 AND confdeltype IN ('c', 'n', 'd')
    )"""


@dataclass(frozen=True)
class TargetColumn:
    """A column as the target's catalogue has it."""

    name: str
    type_oid: int
    type: str
    plain_type: str
    """The type without domains, whose constraints a stage must not check."""
    generated: bool


@dataclass(frozen=True)
class TargetTable:
    """A target table beside the source table that it follows."""

    table: Table
    oid: int
    partitioned: bool
    columns: dict[str, TargetColumn]
    key_indexed: bool
    """An index finds rows by the source's key and keeps it unique."""
    conflicts_elsewhere: bool
    """Another unique index or exclusion constraint makes the order of changes matter."""
    deletes_cascade: bool
    """Foreign keys change other tables' rows when a row of this one is deleted."""

    @property
    def name(self) -> str:
        """The quoted name with its schema."""
        return qualify(self.table.schema, self.table.name)

    @property
    def written(self) -> list[int]:
        """Ordinals of the source's columns that are written: not those that the target computes itself."""
        return [i for i, column in enumerate(self.table.columns) if not self.columns[column.name].generated]

    @property
    def own(self) -> list[str]:
        """Columns that only the target has, and that can be written."""
        ours = {column.name for column in self.table.columns}
        return [column.name for column in self.columns.values() if column.name not in ours and not column.generated]

    def column(self, ordinal: int) -> str:
        """Return a source column's quoted name."""
        return quote(self.table.columns[ordinal].name)

    def plain_type(self, ordinal: int) -> str:
        """Return the type of a stage's column for a source column."""
        return self.columns[self.table.columns[ordinal].name].plain_type


def find(session: Session, table: Table) -> TargetTable | None:
    """Read a table's present shape in the target, or None if it is not there.

    Raises:
        SetupError: a view or foreign table bears the name.
    """
    found = session.fetch(FIND, table.schema, table.name)
    if not found:
        return None
    oid, kind = found[0]
    if kind not in ("r", "p"):
        raise SetupError(f"{table.id}: the target has a view or foreign table of this name", hint="rename or drop it")
    columns = {row[0]: TargetColumn(*row) for row in session.fetch(COLUMNS, oid)}
    indexes = session.fetch(INDEXES, oid)
    key = set(table.key)
    keyed = [usable and bool(key) and set(names) == key for usable, names in indexes]
    ((cascades,),) = session.fetch(CASCADES, oid)
    return TargetTable(table, oid, kind == "p", columns, any(keyed), not all(keyed), cascades)


def create(session: Session, table: Table) -> None:
    """Create a table with the source's columns; NOT NULL on the key only, since other constraints are the source's."""
    columns = [
        f"{quote(column.name)} {column_type(column.type, table.dialect)}" + " NOT NULL" * (column.name in table.key)
        for column in table.columns
    ]
    if table.key:
        columns.append(f"PRIMARY KEY ({listed(table.key)})")
    session.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(table.schema)}")
    session.execute(f"CREATE TABLE {qualify(table.schema, table.name)} ({', '.join(columns)})")


def empty(session: Session, names: Sequence[str]) -> None:
    """Empty tables at once, so that foreign keys between them do not matter; by DELETE where others refer to them."""
    if not names:
        return
    try:
        with session.savepoint():
            session.execute(f"TRUNCATE {', '.join(names)}")
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.InsufficientPrivilege):
        for name in reversed(names):
            session.execute(f"DELETE FROM {name}")


def grow(session: Session, target: TargetTable) -> TargetTable:
    """Add the source's columns that the target lacks, and labels that its enums lack.

    Raises:
        SetupError: a column holds a value in every row, so that older rows would be wrong without it; or an enum's
            labels were renamed.
    """
    table = target.table
    user_types.create_missing(session, [table])
    for column in table.columns:
        if column.name in target.columns:
            continue
        if not column.nullable:
            raise SetupError(
                f"{table.id}: column {column.name!r} is new, and NOT NULL or with a default: rows copied earlier "
                "lack its values",
                hint=copy_again(table.id),
            )
        type_ = column_type(column.type, table.dialect)
        session.execute(f"ALTER TABLE {target.name} ADD COLUMN {quote(column.name)} {type_}")
    grown = find(session, table)
    assert grown is not None
    return grown


def shape(table: Table) -> list[str]:
    """Write a table's columns down as names and types in turn."""
    return [text for column in table.columns for text in (column.name, column.type.native)]


def check_change(table: Table, columns: Sequence[str], key: Sequence[str]) -> None:
    """Compare a source table with its shape as last written down.

    Raises:
        SetupError: it changed in another way than by new columns.
    """
    before, now = dict(zip(columns[::2], columns[1::2], strict=True)), {c.name: c.type.native for c in table.columns}
    gone = [name for name in before if name not in now]
    changed = [name for name in before if name in now and now[name] != before[name]]
    what = ""
    if gone:
        what = f"column {gone[0]!r} was dropped or renamed at the source"
    elif changed:
        what = f"column {changed[0]!r} changed its type at the source from {before[changed[0]]} to {now[changed[0]]}"
    elif before and tuple(key) != table.key:
        what = "its key changed at the source"
    if what:
        raise SetupError(f"{table.id}: {what}", hint=copy_again(table.id))
