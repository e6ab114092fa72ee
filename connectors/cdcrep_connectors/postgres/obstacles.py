"""Finds everything that stands in the way of replicating from a server, each with the statement that removes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cdcrep.connector import Obstacle, Pipeline
from cdcrep.errors import SetupError
from cdcrep.table import TableId
from cdcrep_connectors.postgres.catalog import Catalog, Described, Relation
from cdcrep_connectors.postgres.connection import Connection
from cdcrep_connectors.postgres.options import SourceOptions
from cdcrep_connectors.postgres.publication import (
    OPERATIONS,
    VIA_ROOT,
    Publication,
    Slot,
    chosen,
    create_statement,
    publication_name,
    query_one,
    quoted,
    quoted_table,
    read_publication,
    read_slot,
    slot_name,
)

OLDEST: Final = 140000
NEWEST: Final = 189999

KINDS: Final = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}

SERVER: Final = """
SELECT current_setting('server_version_num')::int, current_setting('wal_level'), pg_is_in_recovery(),
       getdatabaseencoding()::text,
       current_setting('max_replication_slots')::int, (SELECT count(*) FROM pg_replication_slots),
       current_setting('max_wal_senders')::int, (SELECT count(*) FROM pg_stat_replication),
       (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
       current_user::text, r.rolsuper,
       r.rolreplication OR r.rolsuper OR EXISTS (
           SELECT FROM pg_roles m WHERE m.rolname = 'rds_replication' AND pg_has_role(m.oid, 'MEMBER')),
       has_database_privilege(current_database(), 'CREATE'), current_database()::text
FROM pg_roles r WHERE r.rolname = current_user
"""


@dataclass(frozen=True)
class Server:
    """What the server and our role are like."""

    version: int
    wal_level: str
    in_recovery: bool
    encoding: str
    max_slots: int
    slots: int
    max_senders: int
    senders: int
    wal_keep_megabytes: int
    role: str
    superuser: bool
    may_replicate: bool
    may_create: bool
    database: str


@dataclass(frozen=True)
class Survey:
    """Everything that was looked up about a source."""

    pipeline: Pipeline
    options: SourceOptions
    server: Server
    relations: list[Relation]
    described: list[Described]
    publication: Publication | None
    slot: Slot | None

    @property
    def tables(self) -> list[TableId]:
        """The tables that are to be replicated."""
        return [each.relation.id for each in self.described]

    def partitions(self, relation: Relation) -> list[Relation]:
        """List the partitions, at any depth, of a partitioned table."""
        return [other for other in self.relations if relation.oid in other.ancestors]


def survey(pipeline: Pipeline, options: SourceOptions, connection: Connection, catalog: Catalog) -> Survey:
    """Look at the source, changing nothing."""
    row = query_one(connection, SERVER)
    assert row is not None, "every session has a role"
    publication = read_publication(connection, publication_name(pipeline, options))
    relations = catalog.relations()
    stored_generated = publication is not None and publication.stored_generated
    described = catalog.describe(chosen(relations, pipeline.tables), stored_generated)
    slot = read_slot(connection, slot_name(pipeline, options))
    return Survey(pipeline, options, Server(*row), relations, described, publication, slot)


def obstacles(found: Survey) -> list[Obstacle]:
    """List what stands in the way, the server's own state first."""
    return [
        *_of_server(found.server),
        *_of_capacity(found.server, found.slot),
        *_of_selection(found),
        *(obstacle for each in found.described for obstacle in _of_table(found, each)),
        *_of_publication(found),
        *_of_slot(found),
    ]


def refuse_fatal(found: Sequence[Obstacle]) -> None:
    """Raise the fatal ones of the obstacles, together.

    Raises:
        SetupError: there is a fatal one.
    """
    fatal = [obstacle for obstacle in found if obstacle.fatal]
    if fatal:
        raise SetupError(
            "the source is not ready: " + "; ".join(obstacle.what for obstacle in fatal),
            hint="\n".join(dict.fromkeys(obstacle.hint for obstacle in fatal if obstacle.hint)) or None,
        )


def _of_server(server: Server) -> Iterator[Obstacle]:
    if server.version < OLDEST:
        yield Obstacle(f"the server's version {server.version // 10000} is older than 14", "upgrade the server")
    if server.version > NEWEST:
        yield Obstacle(f"the server's version {server.version // 10000} is newer than any tested", fatal=False)
    if server.in_recovery:
        yield Obstacle("the server is a standby", "connect to the primary server")
    if server.wal_level != "logical":
        yield Obstacle(
            f"wal_level is {server.wal_level!r}, not 'logical'",
            "ALTER SYSTEM SET wal_level = 'logical';  -- then restart the server",
        )
    if server.encoding in ("SQL_ASCII", "MULE_INTERNAL"):
        yield Obstacle(
            f"the encoding {server.encoding} of database {server.database!r} does not say what its bytes mean",
            "dump the database and restore it into one that was created with ENCODING 'UTF8'",
        )
    if not server.may_replicate:
        yield Obstacle(
            f"role {server.role!r} may not replicate",
            f"ALTER ROLE {quoted(server.role)} REPLICATION;  -- on Amazon RDS: GRANT rds_replication TO the role",
        )
    if server.superuser:
        yield Obstacle(
            f"role {server.role!r} is a superuser, which replication does not need",
            "CREATE ROLE cdcrep LOGIN REPLICATION; GRANT SELECT on the tables to it",
            fatal=False,
        )


def _of_capacity(server: Server, slot: Slot | None) -> Iterator[Obstacle]:
    if slot is None and server.slots >= server.max_slots:
        yield Obstacle(
            f"all {server.max_slots} replication slots are taken",
            f"ALTER SYSTEM SET max_replication_slots = {server.max_slots + 5};  -- then restart the server",
        )
    if (slot is None or slot.active_pid is None) and server.senders >= server.max_senders:
        yield Obstacle(
            f"all {server.max_senders} WAL senders are in use",
            f"ALTER SYSTEM SET max_wal_senders = {server.max_senders + 5};  -- then restart the server",
        )
    if server.wal_keep_megabytes < 0:
        yield Obstacle(
            "max_slot_wal_keep_size is not limited: while cdcrep does not run, WAL can fill the source's disk",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();",
            fatal=False,
        )


def _of_selection(found: Survey) -> Iterator[Obstacle]:
    selection = found.pipeline.tables
    for pattern in selection.unmatched([relation.id for relation in found.relations]):
        yield Obstacle(f"no table matches {pattern!r}", "create the table, or correct [tables] include")
    replicated = {each.relation.oid for each in found.described}
    for relation in found.relations:
        if relation.oid in replicated or replicated.intersection(relation.ancestors):
            if relation.is_partition and relation.oid not in replicated and _excluded(found, relation):
                yield Obstacle(
                    f"{relation.id} is excluded but is copied as a partition of a table that is included", fatal=False
                )
            continue
        if relation.id not in selection:
            continue
        named = str(relation.id) in selection.include
        what = KINDS.get(relation.kind, "unlogged")
        hint = f"ALTER TABLE {quoted_table(relation.id)} SET LOGGED" if what == "unlogged" else ""
        hint = hint or "take it out of [tables] include, or add it to exclude"
        yield Obstacle(f"{relation.id} is {what}: its changes cannot be followed, it is not copied", hint, fatal=named)


def _excluded(found: Survey, relation: Relation) -> bool:
    selection = found.pipeline.tables
    return relation.id not in selection and relation.id in type(selection)(selection.exclude or ("",))


def _of_table(found: Survey, each: Described) -> Iterator[Obstacle]:
    relation, table = each.relation, quoted_table(each.relation.id)
    yield from _of_identity(found, each)
    for part in (relation, *found.partitions(relation)):
        yield from _of_access(found.server, part)
        if part.kind == "f" or part.persistence != "p":
            state = "a foreign table" if part.kind == "f" else "unlogged"
            yield Obstacle(
                f"partition {part.id} of {relation.id} is {state}: its changes cannot be followed",
                f"ALTER TABLE {table} DETACH PARTITION {quoted_table(part.id)}"
                if part.kind == "f"
                else f"ALTER TABLE {quoted_table(part.id)} SET LOGGED",
            )
    if each.problem:
        yield Obstacle(each.problem, "add the table to [tables] exclude, or change the column's type")
    for column, type_, extension in each.extensions:
        yield Obstacle(
            f"column {column!r} of {relation.id} has type {type_} of extension {extension!r}: its text form is carried",
            f"a PostgreSQL target needs: CREATE EXTENSION {quoted(extension)}",
            fatal=False,
        )
    if each.omitted:
        yield Obstacle(
            f"generated columns of {relation.id} are not replicated: {', '.join(map(repr, each.omitted))}", fatal=False
        )


def _of_identity(found: Survey, each: Described) -> Iterator[Obstacle]:
    relation, table = each.relation, quoted_table(each.relation.id)
    full = f"ALTER TABLE {table} REPLICA IDENTITY FULL;  -- or give it a primary key"
    if not each.has_identity:
        why = "has replica identity NOTHING" if relation.replica_identity == "n" else "has no primary key"
        yield Obstacle(f"{relation.id} {why}: the source would refuse its UPDATEs and DELETEs once published", full)
        return
    if each.lacking_key:
        columns = ", ".join(map(repr, each.lacking_key))
        yield Obstacle(f"the key of {relation.id} contains generated columns, which are not sent: {columns}", full)
    for part in found.partitions(relation):
        if part.kind != "r" or part.replica_identity in (relation.replica_identity, "f"):
            continue
        yield Obstacle(
            f"partition {part.id} has another replica identity than {relation.id}",
            f"ALTER TABLE {quoted_table(part.id)} REPLICA IDENTITY FULL",
        )


def _of_access(server: Server, relation: Relation) -> Iterator[Obstacle]:
    role, table = quoted(server.role), quoted_table(relation.id)
    if not relation.readable:
        yield Obstacle(
            f"role {server.role!r} may not read {relation.id}",
            f"GRANT USAGE ON SCHEMA {quoted(relation.id.schema)} TO {role}; GRANT SELECT ON TABLE {table} TO {role}",
        )
    if relation.row_security:
        yield Obstacle(
            f"row-level security of {relation.id} hides rows from role {server.role!r}", f"ALTER ROLE {role} BYPASSRLS"
        )


def _of_publication(found: Survey) -> Iterator[Obstacle]:
    name = publication_name(found.pipeline, found.options)
    publication = found.publication
    if publication is None:
        yield from _of_creation(found, name)
        return
    alter = f"ALTER PUBLICATION {quoted(name)}"
    if publication.all_tables:
        yield Obstacle(f"publication {name!r} is FOR ALL TABLES", f"DROP PUBLICATION {quoted(name)}")
        return
    if publication.missing_operations:
        yield Obstacle(
            f"publication {name!r} leaves out {', '.join(publication.missing_operations)}",
            f"{alter} SET (publish = '{', '.join(OPERATIONS)}')",
        )
    partitioned = any(each.relation.kind == "p" or each.relation.is_partition for each in found.described)
    if partitioned and not publication.via_root:
        yield Obstacle(f"publication {name!r} publishes partitions under their own names", f"{alter} SET ({VIA_ROOT})")
    for table in sorted(publication.narrowed.intersection(found.tables)):
        yield Obstacle(
            f"publication {name!r} has a row filter or a column list for {table}",
            f"{alter} DROP TABLE {quoted_table(table)}; {alter} ADD TABLE ONLY {quoted_table(table)}",
        )
    # Without publish_via_partition_root the catalogue lists partitions, not roots.
    effective = publication.tables | publication.listed if publication.via_root else publication.listed
    missing = [table for table in found.tables if table not in effective]
    surplus = sorted(publication.tables.difference(found.tables)) if publication.via_root or not partitioned else []
    yield from _of_difference(found, publication, missing, surplus)


def _of_difference(
    found: Survey, publication: Publication, missing: Sequence[TableId], surplus: Sequence[TableId]
) -> Iterator[Obstacle]:
    """Report tables too few or too many where `set_up` cannot put that right itself."""
    manageable = found.options.create_publication and publication.owned
    alter = f"ALTER PUBLICATION {quoted(publication.name)}"
    owned = {each.relation.id for each in found.described if each.relation.owned}
    for table in missing:
        if not (manageable and table in owned):
            yield Obstacle(
                f"publication {publication.name!r} lacks {table}", f"{alter} ADD TABLE ONLY {quoted_table(table)}"
            )
    for table in surplus:
        if not (manageable and table in publication.listed):
            yield Obstacle(
                f"publication {publication.name!r} publishes {table}, which is not configured",
                f"{alter} DROP TABLE {quoted_table(table)}",
            )


def _of_creation(found: Survey, name: str) -> Iterator[Obstacle]:
    statement = create_statement(name, found.tables)
    if not found.options.create_publication:
        yield Obstacle(f"publication {name!r} does not exist", statement)
        return
    foreign = [str(each.relation.id) for each in found.described if not each.relation.owned]
    lacks = [] if found.server.may_create else [f"CREATE on database {found.server.database!r}"]
    lacks += [f"ownership of {', '.join(foreign)}"] if foreign else []
    if lacks and found.described:
        yield Obstacle(
            f"role {found.server.role!r} cannot create publication {name!r}: it lacks {' and '.join(lacks)}",
            f"{statement};  -- as a superuser or the tables' owner",
        )


def _of_slot(found: Survey) -> Iterator[Obstacle]:
    slot, name = found.slot, slot_name(found.pipeline, found.options)
    if slot is None:
        if found.options.failover and found.server.version < 170000:
            yield Obstacle("failover slots need PostgreSQL 17", "set failover = false in [source]")
        return
    if slot.plugin != "pgoutput" or not slot.here:
        owner = f"database {slot.database!r} with plugin {slot.plugin!r}" if slot.plugin else "physical replication"
        yield Obstacle(f"slot {name!r} exists and belongs to {owner}", "set another slot in [source]")
    elif slot.wal_status == "lost":
        yield Obstacle(
            f"slot {name!r} has lost WAL that was not replicated yet",
            "cdcrep teardown, then cdcrep run: the tables have to be copied anew",
        )
    elif slot.active_pid is not None:
        yield Obstacle(f"slot {name!r} is in use by process {slot.active_pid} of the server", fatal=False)
