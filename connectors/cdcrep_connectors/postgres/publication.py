"""What the source's publication and slot are, and what they have to be."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg import sql

from cdcrep.connector import Pipeline
from cdcrep.selection import Selection
from cdcrep.table import TableId
from cdcrep_connectors.postgres.catalog import Relation
from cdcrep_connectors.postgres.connection import Connection
from cdcrep_connectors.postgres.failures import translate
from cdcrep_connectors.postgres.options import SourceOptions

OPERATIONS: Final = ("insert", "update", "delete", "truncate")
VIA_ROOT: Final = "publish_via_partition_root = true"


@dataclass(frozen=True)
class Publication:
    """A publication as the catalogue shows it."""

    name: str
    owned: bool
    all_tables: bool
    missing_operations: tuple[str, ...]
    via_root: bool
    stored_generated: bool
    tables: frozenset[TableId]
    """What it publishes in effect; partitioned tables by their roots where `via_root`."""
    listed: frozenset[TableId]
    """Tables that were added by name."""
    narrowed: frozenset[TableId] = field(default_factory=frozenset)
    """Tables with a row filter or a column list."""


@dataclass(frozen=True)
class Slot:
    """A replication slot as `pg_replication_slots` shows it."""

    plugin: str | None
    database: str | None
    active_pid: int | None
    wal_status: str | None
    here: bool
    """It belongs to the database we are connected to."""


def slot_name(pipeline: Pipeline, options: SourceOptions) -> str:
    """Return the configured name of the slot, or one made of the pipeline's: distinct for distinct pipelines."""
    return options.slot or _default_name(pipeline.name)


def publication_name(pipeline: Pipeline, options: SourceOptions) -> str:
    """Return the configured name of the publication, or one made of the pipeline's."""
    return options.publication or _default_name(pipeline.name)


def _default_name(name: str) -> str:
    plain = "cdcrep_" + re.sub(r"[^a-z0-9_]", "_", name)
    if plain == f"cdcrep_{name}" and len(plain) <= 63:
        return plain
    # Characters were replaced or cut off: keep the names of two pipelines apart.
    return f"{plain[:54]}_{zlib.crc32(name.encode()):08x}"


def chosen(relations: Sequence[Relation], selection: Selection) -> list[Relation]:
    """Return the tables to replicate: permanent, selected, and not covered by a partitioned table that is selected."""
    selected = {r.oid for r in relations if r.kind in ("r", "p") and r.persistence == "p" and r.id in selection}
    return [r for r in relations if r.oid in selected and not selected.intersection(r.ancestors)]


def quoted(*name: str) -> str:
    """Quote a possibly qualified name for SQL text that is used without parameters."""
    return sql.Identifier(*name).as_string(None)


def quoted_table(table: TableId) -> str:
    """Quote a table's name for SQL text that is used without parameters."""
    return quoted(table.schema, table.name)


def create_statement(name: str, tables: Sequence[TableId]) -> str:
    """Write the statement that creates the publication of exactly these tables."""
    listed = ", ".join(f"ONLY {quoted_table(table)}" for table in tables)
    return f"CREATE PUBLICATION {quoted(name)}{' FOR TABLE ' + listed if tables else ''} WITH ({VIA_ROOT})"


def read_publication(connection: Connection, name: str) -> Publication | None:
    """Look a publication up; None: there is none."""
    try:
        version = connection.info.server_version
        generated = "pubgencols = 's'" if version >= 180000 else "false"
        row = connection.execute(
            f"""SELECT oid, pg_has_role(pubowner, 'USAGE'), puballtables,
                       pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, {generated}
                FROM pg_publication WHERE pubname = %s""".encode(),
            [name],
        ).fetchone()
        if row is None:
            return None
        oid, owned, all_tables, *operations, via_root, stored_generated = row
        narrowed = "prqual IS NOT NULL OR prattrs IS NOT NULL" if version >= 150000 else "false"
        listed = connection.execute(
            f"""SELECT n.nspname, c.relname, {narrowed} FROM pg_publication_rel p
                JOIN pg_class c ON c.oid = p.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE prpubid = %s""".encode(),
            [oid],
        ).fetchall()
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s", [name]
        ).fetchall()
    except psycopg.Error as error:
        raise translate(error, f"reading publication {name!r}") from error
    return Publication(
        name,
        owned,
        all_tables,
        tuple(operation for operation, on in zip(OPERATIONS, operations, strict=True) if not on),
        via_root,
        stored_generated,
        frozenset(TableId(*table) for table in tables),
        frozenset(TableId(schema, table) for schema, table, _ in listed),
        frozenset(TableId(schema, table) for schema, table, narrow in listed if narrow),
    )


def read_slot(connection: Connection, name: str) -> Slot | None:
    """Look a slot up; None: there is none."""
    row = query_one(
        connection,
        """SELECT plugin, database, active_pid, wal_status, database IS NOT DISTINCT FROM current_database()
           FROM pg_replication_slots WHERE slot_name = %s""",
        [name],
    )
    return Slot(*row) if row else None


def query_one(connection: Connection, statement: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
    """Run a query for its first row."""
    try:
        return connection.execute(statement.encode(), list(values) or None).fetchone()
    except psycopg.Error as error:
        raise translate(error, "asking the source") from error
