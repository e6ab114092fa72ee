"""The target's tables as its catalogue shows them, and how they come into being and grow."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pymysql
from pymysql.constants import ER

from cdcrep.errors import SetupError
from cdcrep.table import Column, Table, TableId
from cdcrep_connectors.mysql.checkpoint import Shape, shape_of
from cdcrep_connectors.mysql.column_types import Dialect, declared, target_types
from cdcrep_connectors.mysql.same_family import is_geometry, is_labelled, is_same
from cdcrep_connectors.mysql.session import Session
from cdcrep_connectors.mysql.target_names import ROW_NUMBER, copy_again, listed, qualify, quote, unfit

RESERVED: Final = frozenset({"cdcrep", "mysql", "information_schema", "performance_schema", "sys"})

FIND: Final = """
    SELECT table_type, engine FROM information_schema.tables WHERE table_schema = %s AND table_name = %s"""

COLUMNS: Final = """
    SELECT column_name, column_type, collation_name, extra, generation_expression
    FROM information_schema.columns WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position"""

INDEXES: Final = """
    SELECT index_name, GROUP_CONCAT(column_name ORDER BY seq_in_index SEPARATOR '\\0'), MAX(sub_part IS NOT NULL)
    FROM information_schema.statistics WHERE table_schema = %s AND table_name = %s AND non_unique = 0
    GROUP BY index_name ORDER BY index_name = 'PRIMARY' DESC"""


@dataclass(frozen=True)
class TargetColumn:
    """A column as the target's catalogue has it."""

    name: str
    type: str
    collation: str | None
    generated: bool

    @property
    def declared(self) -> str:
        """The type as a temporary table's definition has it."""
        if self.collation is None:
            return self.type
        return f"{self.type} CHARACTER SET {self.collation.partition('_')[0]} COLLATE {self.collation}"


@dataclass(frozen=True)
class TargetTable:
    """A target table beside the source table that it follows."""

    table: Table
    columns: dict[str, TargetColumn]
    key_index: str | None
    """The unique index over exactly the source's key."""
    engine: str

    @property
    def name(self) -> str:
        """The quoted name with its database."""
        return qualify(self.table.id)

    @functools.cached_property
    def written(self) -> list[int]:
        """Ordinals of the source's columns that are written: not those that the target computes itself."""
        return [i for i, column in enumerate(self.table.columns) if not self.columns[column.name].generated]

    @functools.cached_property
    def own(self) -> list[TargetColumn]:
        """Columns that only the target has, and that can be written."""
        ours = {column.name for column in self.table.columns} | {ROW_NUMBER}
        return [column for column in self.columns.values() if column.name not in ours and not column.generated]

    @property
    def numbered(self) -> bool:
        """Tell whether copies of a row can be told apart."""
        return ROW_NUMBER in self.columns

    def column(self, ordinal: int) -> str:
        """Return a source column's quoted name."""
        return quote(self.table.columns[ordinal].name)

    def column_type(self, ordinal: int) -> str:
        """Return the type of a temporary table's column for a source column."""
        return self.columns[self.table.columns[ordinal].name].declared

    def is_enum(self, ordinal: int) -> bool:
        """Tell whether the column for a source column is an ENUM."""
        return self.columns[self.table.columns[ordinal].name].type.lower().startswith("enum(")


def find(session: Session, table: Table) -> TargetTable | None:
    """Read a table's present shape in the target, or None if it is not there.

    Raises:
        SetupError: a view bears the name.
    """
    place = (table.schema, table.name)
    found = session.fetch(FIND, *place)
    if not found:
        return None
    kind, engine = found[0]
    if kind != "BASE TABLE":
        raise SetupError(f"{table.id}: the target has a view of this name", hint="rename or drop it")
    columns = {
        name: TargetColumn(name, _text(type_), collation, bool(_text(expression or "")) or "GENERATED" in extra.split())
        for name, type_, collation, extra, expression in session.fetch(COLUMNS, *place)
    }
    index = None
    for name, names, partial in session.fetch(INDEXES, *place):
        if not partial and names is not None and set(names.split("\0")) == set(table.key):
            index = index or name
    # Column names are compared without regard to case.
    folded = {name.lower(): name for name in columns}
    for column in table.columns:
        if column.name not in columns and (other := folded.get(column.name.lower())):
            raise SetupError(
                f"{table.id}: column {column.name!r} is called {other!r} in the target",
                hint=f"ALTER TABLE {qualify(table.id)} RENAME COLUMN {quote(other)} TO {quote(column.name)};",
            )
    return TargetTable(table, columns, index, engine or "")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def refusals(tables: Sequence[Table], dialect: Dialect) -> Iterator[tuple[str, str]]:
    """Say which tables the target cannot hold at all, with what to type."""
    for table in tables:
        exclude = f'add "{table.id}" to exclude in [tables]'
        if table.schema.lower() in RESERVED:
            yield f"{table.id}: the database {table.schema!r} is the target's own", exclude
        if not table.columns:
            yield f"{table.id}: MySQL cannot hold a table without columns", exclude
        seen: dict[str, str] = {}
        for name in (table.schema, table.name, *(column.name for column in table.columns)):
            if (wrong := unfit(name)) is not None:
                yield f"{table.id}: the name {name!r} {wrong}", exclude
        for column in table.columns:
            twin = seen.setdefault(column.name.lower(), column.name)
            if twin != column.name:
                yield (
                    f"{table.id}: columns {twin!r} and {column.name!r} are one name in MySQL, which ignores case",
                    exclude,
                )
        if ROW_NUMBER in seen:
            yield f"{table.id}: the name {ROW_NUMBER!r} is taken by the target's bookkeeping", exclude
        try:
            target_types(table, dialect)
        except SetupError as error:
            yield error.message, exclude


def create(session: Session, table: Table) -> None:
    """Create a table with the source's columns; NOT NULL on the key only, since other constraints are the source's."""
    types = target_types(table, session.dialect)
    columns = [
        f"{quote(column.name)} {declared(type_, session.dialect)}" + (" NOT NULL" if column.name in table.key else "")
        for column, type_ in zip(table.columns, types, strict=True)
    ]
    if table.key:
        columns.append(f"PRIMARY KEY ({listed(table.key)})")
    else:
        columns.append(f"{quote(ROW_NUMBER)} BIGINT UNSIGNED NOT NULL AUTO_INCREMENT INVISIBLE PRIMARY KEY")
    character_set = session.dialect.character_set
    session.execute(f"CREATE DATABASE IF NOT EXISTS {quote(table.schema)} {character_set}")
    session.execute(
        f"CREATE TABLE {qualify(table.id)} ({', '.join(columns)}) ENGINE=InnoDB ROW_FORMAT=DYNAMIC {character_set}"
    )


def empty(session: Session, table: TableId) -> None:
    """Empty a table, outside a transaction: by DELETE where the privilege for TRUNCATE is lacking."""
    try:
        session.execute(f"TRUNCATE TABLE {qualify(table)}")
    except pymysql.OperationalError as error:
        if error.args[0] != ER.TABLEACCESS_DENIED_ERROR:
            raise
        session.execute(f"DELETE FROM {qualify(table)}")


def lacking(target: TargetTable) -> list[Column]:
    """Return the source's columns that the target lacks.

    Raises:
        SetupError: one of them holds a value in every row, so that older rows would be wrong without it.
    """
    table = target.table
    missing = [column for column in table.columns if column.name not in target.columns]
    for column in missing:
        if not column.nullable:
            raise SetupError(
                f"{table.id}: column {column.name!r} is new, and NOT NULL or with a default: rows copied earlier "
                "lack its values",
                hint=copy_again(table.id),
            )
    return missing


def grow(session: Session, target: TargetTable) -> TargetTable:
    """Add the source's columns that the target lacks; ends the transaction that is open, as every ALTER does."""
    table, missing = target.table, lacking(target)
    if not missing:
        return target
    types = dict(zip((column.name for column in table.columns), target_types(table, session.dialect), strict=True))
    added = [f"ADD COLUMN {quote(column.name)} {declared(types[column.name], session.dialect)}" for column in missing]
    session.execute(f"ALTER TABLE {target.name} {', '.join(added)}")
    grown = find(session, table)
    assert grown is not None
    return grown


def check_change(table: Table, before: Shape | None) -> None:
    """Compare a source table with its shape as last written down.

    Raises:
        SetupError: it changed in another way than by new columns.
    """
    if before is None:
        return
    (types, key), (now, key_now) = before, shape_of(table)
    gone = [name for name in types if name not in now]
    changed = [name for name in types if name in now and now[name] != types[name]]
    what = ""
    if gone:
        what = f"column {gone[0]!r} was dropped or renamed at the source"
    elif changed:
        what = f"column {changed[0]!r} changed its type at the source from {types[changed[0]]} to {now[changed[0]]}"
    elif key_now != key:
        what = "its key changed at the source"
    if what:
        raise SetupError(f"{table.id}: {what}", hint=copy_again(table.id))


def differences(session: Session, target: TargetTable) -> Iterator[tuple[str, str]]:
    """Say what is wrong with an existing target table for its source table, with what to type."""
    table, dialect = target.table, session.dialect
    if target.engine.lower() != "innodb":
        yield f"{table.id}: the target's table is kept by {target.engine}", f"ALTER TABLE {target.name} ENGINE=InnoDB;"
    for column, types in zip(table.columns, _fitting(table, dialect), strict=True):
        theirs = target.columns.get(column.name)
        if theirs is None or theirs.generated:
            continue
        wanted = declared(types[0], dialect)
        binary = theirs.collation is None or theirs.collation == dialect.collation
        if not binary or not any(_is_same(type_, theirs.type) for type_ in types):
            shown = theirs.declared
            change = f"ALTER TABLE {target.name} MODIFY {quote(column.name)} {wanted};"
            yield f"{table.id}: column {column.name!r} is {shown} in the target, needed is {wanted}", change
    if table.key and target.key_index is None:
        yield (
            f"{table.id}: the target's table has no unique index on its key",
            f"ALTER TABLE {target.name} ADD UNIQUE ({listed(table.key)});",
        )
    if not table.key and not target.numbered:
        yield (
            f"{table.id}: the target's table has no column that tells copies of a row apart",
            f"ALTER TABLE {target.name} ADD COLUMN {ROW_NUMBER} BIGINT UNSIGNED NOT NULL AUTO_INCREMENT INVISIBLE "
            "PRIMARY KEY;",
        )


def _fitting(table: Table, dialect: Dialect) -> Iterator[tuple[str, ...]]:
    """Yield the types in which a column's values can be held, the best one first.

    Labels and geometries may also stand in columns of text and bytes: earlier versions made no others, and these take
    values that a target's own type refuses.
    """
    best = target_types(table, dialect)
    plain: list[str] | None = None
    with contextlib.suppress(SetupError):
        plain = target_types(table, dialect, plain=True)
    yield from zip(best, plain or best, strict=True)


def _is_same(type_: str, found: str) -> bool:
    if is_labelled(type_) or is_geometry(type_):
        return is_same(type_, found)
    return _plain(found) == _plain(type_)


def _plain(type_: str) -> str:
    """Return a type without the display width that MariaDB shows of integers."""
    name, _, rest = type_.lower().partition("(")
    if name.endswith("int"):
        return name + rest.partition(")")[2]
    return type_.lower()
