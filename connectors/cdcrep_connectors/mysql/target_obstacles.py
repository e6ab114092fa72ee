"""Everything that stands between the configuration and replication into a MySQL or MariaDB server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import pymysql
from pymysql.constants import ER

from cdcrep.connector import Obstacle, Pipeline
from cdcrep.errors import SetupError
from cdcrep.table import Table
from cdcrep_connectors.mysql import checkpoint
from cdcrep_connectors.mysql.address import DEFAULT_PORT, Address
from cdcrep_connectors.mysql.column_types import limited_keys
from cdcrep_connectors.mysql.options import URL_SCHEMES
from cdcrep_connectors.mysql.privileges import read_privileges
from cdcrep_connectors.mysql.session import Session
from cdcrep_connectors.mysql.target_constraints import constraints
from cdcrep_connectors.mysql.target_rights import Rights
from cdcrep_connectors.mysql.target_tables import differences, find, lacking, refusals

OLDEST_MYSQL: Final = (8, 0, 23)
OLDEST_MARIADB: Final = (10, 7)
"""Invisible columns and a binary collation that does not ignore trailing spaces are needed; of MariaDB its UUID."""

SMALL_PACKET: Final = 16 << 20

DENIED: Final = frozenset({ER.DBACCESS_DENIED_ERROR, ER.TABLEACCESS_DENIED_ERROR})

SERVER: Final = """
    SELECT VERSION(), @@read_only, @@lower_case_table_names, @@innodb_flush_log_at_trx_commit, @@log_bin,
        @@sync_binlog, @@binlog_format, @@max_allowed_packet, @@innodb_page_size, @@local_infile"""


def find_obstacles(session: Session, pipeline: Pipeline, tables: Sequence[Table]) -> list[Obstacle]:
    """Return what `Sink.obstacles` promises."""
    if is_at(pipeline.source, session.address):
        return [
            Obstacle(
                "source and target are the same server, where the tables have the same names",
                "replicate into another server",
            )
        ]
    ((user,),) = session.fetch("SELECT CURRENT_USER()")
    rights = Rights(user, read_privileges(session.fetch))
    found = [*_server(session, tables), *rights.of_bookkeeping()]
    unfit = dict(refusals(tables, session.dialect))
    found += [Obstacle(what, hint) for what, hint in unfit.items()]
    for table in tables:
        if not any(refusals([table], session.dialect)):
            found += _table(session, pipeline, table, rights)
    return found


def is_at(source: str, address: Address) -> bool:
    """Tell whether the URL of a source, which has no user, leads to a server's address."""
    if not source.startswith(URL_SCHEMES):
        return False
    parts = urlsplit(source)
    socket = dict(parse_qsl(parts.query)).get("socket")
    if socket is not None or address.socket is not None:
        return socket == address.socket
    theirs = replace(address, host=parts.hostname or "", port=parts.port or DEFAULT_PORT)
    same_host = theirs.host == address.host or (theirs.is_local and address.is_local)
    return same_host and theirs.port == address.port


def _server(session: Session, tables: Sequence[Table]) -> Iterator[Obstacle]:
    ((version, read_only, folding, flush, log_bin, sync, log_format, packet, page, loads),) = session.fetch(SERVER)
    oldest = OLDEST_MARIADB if session.dialect.is_mariadb else OLDEST_MYSQL
    numbers = tuple(int(part) for part in version.partition("-")[0].split("."))
    if numbers < oldest:
        yield Obstacle(f"the target is version {version}", f"use version {'.'.join(map(str, oldest))} or newer")
    if read_only:
        yield Obstacle("the target is read-only", "connect to the primary server")
    if page < 16384:
        yield Obstacle(f"the target's InnoDB has pages of {page} bytes, too small for keys of text", fatal=False)
    folded = [str(table.id) for table in tables if folding and str(table.id) != str(table.id).lower()]
    if folded:
        yield Obstacle(
            f"the target turns the names of tables into lower case (lower_case_table_names): {', '.join(folded)}",
            "use a server with lower_case_table_names = 0, rename the tables at the source, or leave them out",
        )
    if flush != 1 or (log_bin and sync != 1):
        yield Obstacle(
            "the target may lose committed transactions when its machine fails",
            "SET GLOBAL innodb_flush_log_at_trx_commit = 1, GLOBAL sync_binlog = 1;",
            fatal=False,
        )
    if log_bin and log_format == "STATEMENT":
        yield Obstacle(
            "the target logs statements, which cannot repeat what is applied through temporary tables",
            "SET GLOBAL binlog_format = 'ROW';",
        )
    if packet < SMALL_PACKET:
        yield Obstacle(
            f"rows larger than {packet} bytes cannot be written (max_allowed_packet)",
            "SET GLOBAL max_allowed_packet = 1073741824;",
            fatal=False,
        )
    if not loads:
        yield Obstacle(
            "the target does not allow LOAD DATA LOCAL, with which rows are written twice as fast (local_infile)",
            "SET GLOBAL local_infile = 1;",
            fatal=False,
        )
    try:
        checkpoint.installed(session)
    except SetupError as error:
        yield Obstacle(error.message, error.hint or "")
    except pymysql.MySQLError as error:
        # The privileges that are lacking are named besides.
        if error.args[0] not in DENIED:
            raise


def _table(session: Session, pipeline: Pipeline, table: Table, rights: Rights) -> Iterator[Obstacle]:
    for column, type_ in limited_keys(table, session.dialect):
        yield Obstacle(
            f"{table.id}: column {column.name!r} is part of the key and becomes {type_}: a row with a longer value "
            "would stop the pipeline",
            f"limit the column's length at the source to that of {type_}, to be sure; or leave the table out",
            fatal=False,
        )
    try:
        target = find(session, table)
        if target is None:
            yield from rights.of_creation(table.id)
            return
        ours = _is_ours(session, pipeline, table)
        missing = lacking(target)
    except SetupError as error:
        yield Obstacle(error.message, error.hint or "")
        return
    lacks = list(rights.of_writing(table.id, grows=bool(missing)))
    yield from lacks
    yield from rights.of_seeing_triggers(table.id)
    yield from constraints(session, target)
    if ours:
        return
    for what, hint in differences(session, target):
        yield Obstacle(what, hint)
    for column in missing:
        yield Obstacle(f"{table.id}: column {column.name!r} will be added to the existing target table", fatal=False)
    if pipeline.on_existing == "refuse" and not lacks and session.fetch(f"SELECT 1 FROM {target.name} LIMIT 1"):
        yield Obstacle(
            f"{table.id}: the target's table already holds rows",
            'empty it, or set on_existing = "replace" (empty it then) or "keep" (add to its rows)',
        )


def _is_ours(session: Session, pipeline: Pipeline, table: Table) -> bool:
    try:
        return checkpoint.installed(session) and checkpoint.is_registered(session, pipeline.name, table.id)
    except pymysql.MySQLError as error:
        if error.args[0] not in DENIED:
            raise
        return False
