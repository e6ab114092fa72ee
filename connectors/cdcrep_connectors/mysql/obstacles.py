"""Finds what stands between a server and replication, with the statement that removes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cdcrep.connector import Obstacle, Pipeline
from cdcrep.errors import CdcrepError, SetupError
from cdcrep.table import Table, TableId
from cdcrep_connectors.mysql.catalog import Catalog, Described
from cdcrep_connectors.mysql.connection import Connection, is_mariadb
from cdcrep_connectors.mysql.continuity import NO_LOG, query

TRANSACTIONAL: Final = frozenset({"INNODB"})
KINDS: Final = frozenset({"BASE TABLE"})

CASCADES: Final = """
SELECT constraint_schema, table_name, constraint_name, delete_rule, update_rule
FROM information_schema.referential_constraints
WHERE delete_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT') OR update_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
"""

PERSISTENT: Final = "and in the server's configuration, so that it stays"


@dataclass(frozen=True)
class Survey:
    """What a server says about itself and about the configured tables."""

    pipeline: Pipeline
    mariadb: bool
    variables: Mapping[str, str]
    """In upper case."""
    grants: Sequence[str]
    filtered: bool
    """The server leaves databases out of its log."""
    described: Sequence[Described]
    cascades: Sequence[tuple[TableId, str]]
    """Tables whose rows the storage engine changes because of another table's, and the constraints."""

    @property
    def tables(self) -> list[Table]:
        """The configured tables that can be replicated."""
        return [each.table for each in self.described if each.table is not None and _problem(each) is None]


def survey(pipeline: Pipeline, connection: Connection, catalog: Catalog) -> Survey:
    """Ask for everything, changing nothing."""
    mariadb = is_mariadb(connection)
    found = [relation for relation in catalog.relations() if relation.id in pipeline.tables]
    names = (
        "'log_bin', 'binlog_format', 'binlog_row_image', 'binlog_row_metadata', 'gtid_mode', 'server_id', "
        "'binlog_row_value_options', 'log_slave_updates', 'log_replica_updates'"
    )
    rows = query(connection, f"SHOW GLOBAL VARIABLES WHERE variable_name IN ({names})")
    variables = {str(name).lower(): str(value).upper() for name, value in rows}
    grants = [str(grant).upper() for (grant,) in query(connection, "SHOW GRANTS")]
    cascades = [(TableId(str(schema), str(table)), str(name)) for schema, table, name, *_ in catalog.fetch(CASCADES)]
    return Survey(
        pipeline,
        mariadb,
        variables,
        grants,
        _is_filtered(connection),
        [catalog.describe(relation) for relation in found],
        [(table, name) for table, name in cascades if table in pipeline.tables],
    )


def obstacles(found: Survey) -> list[Obstacle]:
    """List everything that stands in the way."""
    listed = [*_settings(found), *_privileges(found), *_tables(found)]
    known = [each.relation.id for each in found.described]
    listed += [
        Obstacle(f"no table matches {pattern!r}", "correct tables in the configuration, or GRANT SELECT on the table")
        for pattern in found.pipeline.tables.unmatched(known)
    ]
    return listed


def refuse_fatal(listed: Sequence[Obstacle]) -> None:
    """Raise SetupError where a fatal obstacle is among them."""
    fatal = [obstacle for obstacle in listed if obstacle.fatal]
    if fatal:
        more = f" (and {len(fatal) - 1} more: cdcrep check)" if len(fatal) > 1 else ""
        raise SetupError(f"{fatal[0].what}{more}", hint=fatal[0].hint or None)


def _settings(found: Survey) -> list[Obstacle]:
    values = found.variables
    if values.get("log_bin") != "ON":
        return [Obstacle("the source writes no binary log", NO_LOG)]
    listed = []
    if values.get("binlog_format", "ROW") != "ROW":
        listed.append(
            Obstacle(
                f"binlog_format is {values['binlog_format']}: changes may be logged as statements",
                f"SET GLOBAL binlog_format = ROW, {PERSISTENT}; sessions that are open keep the old format",
            )
        )
    if values.get("binlog_row_metadata", "MINIMAL") != "FULL":
        listed.append(
            Obstacle(
                "binlog_row_metadata is not FULL: rows from before an ALTER TABLE cannot be told apart",
                f"SET GLOBAL binlog_row_metadata = FULL, {PERSISTENT}",
                fatal=False,
            )
        )
    if found.filtered:
        listed.append(
            Obstacle(
                "the server leaves databases out of its binary log (binlog_do_db or binlog_ignore_db)",
                "remove these options from the server's configuration and restart it",
            )
        )
    if not found.mariadb and values.get("gtid_mode", "OFF") in ("ON_PERMISSIVE", "OFF_PERMISSIVE"):
        listed.append(
            Obstacle(f"gtid_mode is {values['gtid_mode']}, between off and on", "SET GLOBAL gtid_mode = ON, or OFF")
        )
    return listed


def _privileges(found: Survey) -> list[Obstacle]:
    everything = " ".join(grant for grant in found.grants if " ON *.*" in grant)
    if "ALL PRIVILEGES" in everything or "SUPER" in everything:
        return []
    wanted = {
        "REPLICATION SLAVE": "REPLICATION SLAVE",
        "BINLOG MONITOR" if found.mariadb else "REPLICATION CLIENT": "REPLICATION CLIENT",
    }
    listed = [
        Obstacle(f"the user lacks the privilege {name}", f"GRANT {grant} ON *.* TO the user that cdcrep connects as")
        for name, grant in wanted.items()
        if name not in everything and grant not in everything
    ]
    if "RELOAD" not in everything and "FLUSH_TABLES" not in everything:
        listed.append(
            Obstacle(
                "the user lacks the privilege RELOAD, with which writing is locked out for a moment before a copy",
                "GRANT RELOAD ON *.* TO the user that cdcrep connects as",
            )
        )
    return listed


def _tables(found: Survey) -> list[Obstacle]:
    listed = []
    for each in found.described:
        if (problem := _problem(each)) is not None:
            listed.append(problem)
        elif each.table is not None and not each.table.key and found.variables.get("binlog_row_image") != "FULL":
            listed.append(
                Obstacle(
                    f"{each.relation.id} has no primary key, and binlog_row_image is not FULL",
                    f"SET GLOBAL binlog_row_image = FULL, {PERSISTENT}, or add a primary key",
                    fatal=False,
                )
            )
    # The storage engine changes the children by itself, and logs nothing of it.
    listed += [
        Obstacle(
            f"the foreign key {name} changes rows of {table} without a trace in the binary log",
            f"ALTER TABLE `{table.schema}`.`{table.name}` DROP FOREIGN KEY `{name}`, or leave the table out",
        )
        for table, name in found.cascades
    ]
    return listed


def _problem(each: Described) -> Obstacle | None:
    relation = each.relation
    if relation.kind not in KINDS:
        return Obstacle(f"{relation.id} is a {relation.kind.lower()}, not a table", "leave it out: exclude in [tables]")
    if relation.engine.upper() not in TRANSACTIONAL:
        return Obstacle(
            f"{relation.id} uses the engine {relation.engine}, which has no transactions",
            f"ALTER TABLE `{relation.id.schema}`.`{relation.id.name}` ENGINE = InnoDB",
        )
    if each.table is None:
        return Obstacle(each.problem, "leave the table out: exclude in [tables]")
    return None


def _is_filtered(connection: Connection) -> bool:
    """Tell whether the log's end names databases that are logged or left out."""
    for statement in ("SHOW BINARY LOG STATUS", "SHOW MASTER STATUS"):
        try:
            rows = query(connection, statement)
        except CdcrepError:
            continue
        return any(str(part or "") for row in rows for part in row[2:4])
    return False
