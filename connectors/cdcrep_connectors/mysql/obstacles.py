"""Finds what stands between a server and replication, with the statement that removes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cdcrep.connector import Obstacle, Pipeline
from cdcrep.errors import SetupError
from cdcrep.selection import Selection
from cdcrep.table import Table, TableId
from cdcrep_connectors.mysql.catalog import Catalog, Described
from cdcrep_connectors.mysql.indirect import CASCADES
from cdcrep_connectors.mysql.settings import (
    PERSISTENT,
    ServerSettings,
    read_settings,
    settings_obstacles,
)
from cdcrep_connectors.mysql.source_rights import SourceRights, read_rights
from cdcrep_connectors.mysql.sql_text import quoted, quoted_table

TRANSACTIONAL: Final = frozenset({"INNODB"})
KINDS: Final = frozenset({"BASE TABLE"})


@dataclass(frozen=True)
class Survey:
    """What a server says about itself and about the configured tables."""

    pipeline: Pipeline
    settings: ServerSettings
    rights: SourceRights
    described: Sequence[Described]
    cascades: Sequence[tuple[TableId, str]]
    """Tables whose rows the storage engine changes because of another table's, and the constraints."""

    @property
    def tables(self) -> list[Table]:
        """The configured tables that can be replicated."""
        return [each.table for each in self.described if each.table is not None and _problem(each) is None]


def survey(pipeline: Pipeline, catalog: Catalog, *, mariadb: bool) -> Survey:
    """Ask for everything, changing nothing."""
    found = [relation for relation in catalog.relations() if relation.id in pipeline.tables]
    described = [catalog.describe(relation) for relation in found]
    settings, rights = read_settings(catalog.fetch, mariadb=mariadb), read_rights(catalog.fetch, mariadb=mariadb)
    return Survey(pipeline, settings, rights, described, _cascades(pipeline, catalog))


def obstacles(found: Survey) -> list[Obstacle]:
    """List everything that stands in the way."""
    tables = [table.id for table in found.tables]
    rights = [
        *found.rights.of_streaming(),
        *found.rights.of_locking(tables),
        *found.rights.of_reading(tables),
    ]
    folding = found.settings.variables.get("lower_case_table_names", "0")
    known = [each.relation.id for each in found.described]
    names = list(name_obstacles(found.pipeline.tables, known, folding))
    return [*settings_obstacles(found.settings), *rights, *_tables(found), *names]


def look_again(pipeline: Pipeline, catalog: Catalog, *, mariadb: bool) -> None:
    """Look at what can change beside a running stream without standing in the log.

    Raises:
        SetupError: replication would not be allowed to start now.
    """
    settings, rights = read_settings(catalog.fetch, mariadb=mariadb), read_rights(catalog.fetch, mariadb=mariadb)
    cascades = [] if settings.logs_cascades else _cascade_obstacles(_cascades(pipeline, catalog))
    refuse_fatal([*settings_obstacles(settings), *rights.of_streaming(), *cascades])


def refuse_fatal(listed: Sequence[Obstacle]) -> None:
    """Raise SetupError where a fatal obstacle is among them."""
    fatal = [obstacle for obstacle in listed if obstacle.fatal]
    if fatal:
        more = f" (and {len(fatal) - 1} more: cdcrep check)" if len(fatal) > 1 else ""
        raise SetupError(f"{fatal[0].what}{more}", hint=fatal[0].hint or None)


def name_obstacles(selection: Selection, tables: Sequence[TableId], folding: str) -> Iterator[Obstacle]:
    """List patterns that match nothing, and names that are not the log's; `folding`: lower_case_table_names.

    1: names are in lower case everywhere. 2: they are as they were written, but not in the log.
    """
    patterns = (*selection.include, *selection.exclude) if folding == "1" else ()
    unlike = {pattern for pattern in patterns if pattern != pattern.lower()}
    for pattern in unlike:
        yield Obstacle(
            f"{pattern!r} matches no table: the server has their names in lower case (lower_case_table_names = 1)",
            f"write {pattern.lower()!r} in the configuration",
        )
    for pattern in selection.unmatched(tables):
        if pattern not in unlike:
            yield Obstacle(
                f"no table matches {pattern!r}",
                "correct tables in the configuration, or GRANT SELECT on the table",
            )
    for table in tables:
        if folding == "2" and str(table) != str(table).lower():
            yield Obstacle(
                f"{table} is not named so in the log, which has names in lower case (lower_case_table_names = 2)",
                "RENAME it to a name in lower case, or leave it out",
            )


def _tables(found: Survey) -> list[Obstacle]:
    listed = []
    for each in found.described:
        if (problem := _problem(each)) is not None:
            listed.append(problem)
        elif (
            each.table is not None and not each.table.key and found.settings.variables.get("binlog_row_image") != "FULL"
        ):
            listed.append(
                Obstacle(
                    f"{each.relation.id} has no primary key, and binlog_row_image is not FULL",
                    f"SET GLOBAL binlog_row_image = FULL, {PERSISTENT}, or add a primary key",
                    fatal=False,
                )
            )
    return listed if found.settings.logs_cascades else [*listed, *_cascade_obstacles(found.cascades)]


def _cascades(pipeline: Pipeline, catalog: Catalog) -> list[tuple[TableId, str]]:
    found = [(TableId(str(schema), str(table)), str(name)) for schema, table, name, *_ in catalog.fetch(CASCADES)]
    return [(table, name) for table, name in found if table in pipeline.tables]


def _cascade_obstacles(cascades: Sequence[tuple[TableId, str]]) -> list[Obstacle]:
    # The storage engine changes the children by itself, and logs nothing of it.
    return [
        Obstacle(
            f"the foreign key {name} changes rows of {table} without a trace in the binary log",
            f"ALTER TABLE {quoted_table(table)} DROP FOREIGN KEY {quoted(name)}, or leave the table out",
        )
        for table, name in cascades
    ]


def _problem(each: Described) -> Obstacle | None:
    relation = each.relation
    if relation.kind == "SYSTEM VERSIONED":
        return Obstacle(
            f"{relation.id} is system-versioned: its log mixes the rows of its history with those that hold",
            f"ALTER TABLE {quoted_table(relation.id)} DROP SYSTEM VERSIONING, or leave the table out",
        )
    if relation.kind not in KINDS:
        return Obstacle(f"{relation.id} is a {relation.kind.lower()}, not a table", "leave it out: exclude in [tables]")
    if relation.engine.upper() not in TRANSACTIONAL:
        return Obstacle(
            f"{relation.id} uses the engine {relation.engine}, which has no transactions",
            f"ALTER TABLE {quoted_table(relation.id)} ENGINE = InnoDB",
        )
    if each.table is None:
        return Obstacle(each.problem, "leave the table out: exclude in [tables]")
    return None
