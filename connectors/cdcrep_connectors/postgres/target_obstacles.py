"""Finds what stands in the way of replicating into a PostgreSQL database, all at once, changing nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import psycopg

from cdcrep.connector import Obstacle, Pipeline
from cdcrep.errors import SetupError
from cdcrep.table import Column, Table
from cdcrep_connectors.postgres import checkpoint
from cdcrep_connectors.postgres.column_types import column_type
from cdcrep_connectors.postgres.session import Session
from cdcrep_connectors.postgres.target_tables import TargetTable, find
from cdcrep_connectors.postgres.user_types import needed
from cdcrep_connectors.relational.names import listed, quote

OLDEST: Final = 140000

HOLDS: Final = """
    SELECT coalesce(has_table_privilege($1::oid, 'SELECT, INSERT') AND has_table_privilege($1::oid, 'UPDATE')
        AND has_table_privilege($1::oid, 'DELETE'), false)"""


def find_obstacles(session: Session, pipeline: Pipeline, tables: Sequence[Table]) -> list[Obstacle]:
    """Return what `Sink.obstacles` promises."""
    return [*_server(session), *(o for table in tables for o in _table(session, pipeline, table))]


def _server(session: Session) -> Iterator[Obstacle]:
    ((version, shown, standby, database, role, may_create),) = session.fetch(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(), "
        "current_database(), current_user::text, has_database_privilege(current_database(), 'CREATE')"
    )
    if version < OLDEST:
        yield Obstacle(f"the target is PostgreSQL {shown}", "use PostgreSQL 14 or newer")
    if standby:
        yield Obstacle("the target is a standby server and cannot be written", "connect to the primary server")
    if not may_create and not session.fetch("SELECT 1 FROM pg_namespace WHERE nspname = 'cdcrep'"):
        yield Obstacle(
            f"role {role} may not create the schema cdcrep in the target",
            f"GRANT CREATE ON DATABASE {quote(database)} TO {quote(role)};",
        )
    if not session.replica:
        yield Obstacle(
            f"role {role} may not set session_replication_role: the target's triggers and foreign keys stay active",
            f"GRANT SET ON PARAMETER session_replication_role TO {quote(role)};  -- PostgreSQL 15 and newer",
            fatal=False,
        )
    try:
        checkpoint.installed(session)
    except SetupError as error:
        yield Obstacle(error.message, error.hint or "")
    except psycopg.errors.InsufficientPrivilege:
        yield Obstacle(
            f"role {role} may not use the schema cdcrep in the target", f"ALTER SCHEMA cdcrep OWNER TO {quote(role)};"
        )


def _table(session: Session, pipeline: Pipeline, table: Table) -> Iterator[Obstacle]:
    for column in table.columns:
        yield from _type(session, table, column)
    try:
        target = find(session, table)
    except SetupError as error:
        yield Obstacle(error.message, error.hint or "")
        return
    if target is None:
        yield from _creation(session, table)
    else:
        yield from _existing(session, pipeline, target)


def _type(session: Session, table: Table, column: Column) -> Iterator[Obstacle]:
    try:
        name = column_type(column.type, table.dialect)
    except SetupError as error:
        yield Obstacle(f"{table.id}: column {column.name!r}: {error.message}")
        return
    if needed([Table(table.schema, table.name, (column,), (), table.dialect)]):
        return
    if session.fetch("SELECT to_regtype($1)::oid", name.partition("(")[0] if "(" in name else name) == [(None,)]:
        yield Obstacle(
            f"{table.id}: column {column.name!r} has type {name}, which the target does not know",
            "CREATE EXTENSION …;  -- the one that brings this type at the source",
        )


def _creation(session: Session, table: Table) -> Iterator[Obstacle]:
    found = session.fetch(
        "SELECT has_schema_privilege(oid, 'CREATE, USAGE'), current_user::text FROM pg_namespace WHERE nspname = $1",
        table.schema,
    )
    if found and not found[0][0]:
        yield Obstacle(
            f"{table.id}: role {found[0][1]} may not create tables in the target's schema",
            f"GRANT USAGE, CREATE ON SCHEMA {quote(table.schema)} TO {quote(found[0][1])};",
        )


def _existing(session: Session, pipeline: Pipeline, target: TargetTable) -> Iterator[Obstacle]:
    table = target.table
    for column in table.columns:
        theirs = target.columns.get(column.name)
        if theirs is None or theirs.generated:
            continue
        wanted = column_type(column.type, table.dialect)
        same = session.fetch(
            "SELECT to_regtype($1)::oid::bigint = $2::bigint",
            wanted.partition("(")[0] + wanted.rpartition(")")[2] if "(" in wanted else wanted,
            theirs.type_oid,
        )
        if same != [(True,)] or _modifier(wanted) != _modifier(theirs.type):
            yield Obstacle(
                f"{table.id}: column {column.name!r} is {theirs.type} in the target, {wanted} is needed",
                f"ALTER TABLE {target.name} ALTER {quote(column.name)} TYPE {wanted}; or set allow_lossy = true",
                fatal=not pipeline.allow_lossy,
            )
    if table.key and not target.key_indexed:
        yield Obstacle(
            f"{table.id}: the target's table has no unique index on its key",
            f"CREATE UNIQUE INDEX ON {target.name} ({listed(table.key)});",
        )
    ((allowed,),) = session.fetch(HOLDS, target.oid)
    if not allowed:
        yield Obstacle(
            f"{table.id}: our role may not write the target's table",
            f"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON {target.name} TO CURRENT_USER;",
        )
    elif (
        pipeline.on_existing == "refuse"
        and not _is_ours(session, pipeline, table)
        and session.fetch(f"SELECT 1 FROM {target.name} LIMIT 1")
    ):
        yield Obstacle(
            f"{table.id}: the target's table already holds rows",
            'empty it, or set on_existing = "replace" (empty it then) or "keep" (add to its rows)',
        )


def _modifier(type_: str) -> str:
    return type_[type_.index("(") : type_.index(")") + 1] if "(" in type_ else ""


def _is_ours(session: Session, pipeline: Pipeline, table: Table) -> bool:
    """Tell whether the rows come from this pipeline's own copy."""
    if session.fetch("SELECT to_regclass('cdcrep.tables')") == [(None,)]:
        return False
    return bool(
        session.fetch(
            f"SELECT 1 FROM cdcrep.tables WHERE {checkpoint.PLACE} AND copy_position IS NOT NULL",
            pipeline.name,
            table.schema,
            table.name,
        )
    )
