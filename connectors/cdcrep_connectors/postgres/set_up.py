"""Creates, adjusts and drops the publication and the slot."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import psycopg

from cdcrep.errors import CdcrepError, DivergedError, SetupError, TransientError
from cdcrep.table import TableId
from cdcrep_connectors.postgres.connection import Connection, connect
from cdcrep_connectors.postgres.failures import sqlstate, translate
from cdcrep_connectors.postgres.lsn import parse_lsn
from cdcrep_connectors.postgres.membership import COPY_ANEW
from cdcrep_connectors.postgres.obstacles import Survey
from cdcrep_connectors.postgres.options import SourceOptions
from cdcrep_connectors.postgres.publication import (
    create_statement,
    publication_name,
    query_one,
    quoted,
    quoted_table,
    read_publication,
    read_slot,
    slot_name,
)

QUERY_CANCELED: Final = "57014"

RELEASE_SECONDS: Final = 10.0
"""How long a server process that was just left may go on to hold its slot."""
RELEASE_PAUSE_SECONDS: Final = 0.05

# Visible to every role, unlike the transactions of others in pg_stat_activity. No pid: a prepared transaction.
WRITERS: Final = """
SELECT coalesce(string_agg(coalesce(pid::text, 'prepared transaction'), ', ' ORDER BY pid), 'none')
FROM pg_locks WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted
"""


@dataclass(frozen=True)
class NewSlot:
    """A slot just created on a replication session that keeps its snapshot alive."""

    session: Connection
    system: int
    """The cluster's system identifier."""
    timeline: int
    lsn: int
    """Consistent point: the snapshot shows every commit that ended at or before it, and no other."""
    snapshot: str
    """Name of the exported snapshot; gone with the session's next command."""


def set_up_publication(found: Survey, connection: Connection, replicated: Collection[TableId]) -> list[str]:
    """Make the publication contain exactly the configured tables; say what was done.

    Raises:
        DivergedError: the slot is there but its publication is not, or lacks a replicated table: changes may have gone
            by unpublished.
    """
    name = publication_name(found.pipeline, found.options)
    if found.publication is None:
        if found.slot is not None:
            raise DivergedError(
                f"slot {slot_name(found.pipeline, found.options)!r} exists but its publication {name!r} does not: "
                "changes that were made since it was dropped are missing",
                hint="cdcrep teardown, then cdcrep run: the tables have to be copied anew",
            )
        _execute(connection, create_statement(name, found.tables))
        return [f"created publication {name} for {', '.join(map(str, found.tables)) or 'no tables'}"]
    missing = sorted(set(found.tables) - found.publication.tables - found.publication.listed)
    if missed := sorted(set(missing).intersection(replicated)):
        raise DivergedError(
            f"publication {name!r} has lost {', '.join(map(str, missed))}: changes that were made since are missing",
            hint=COPY_ANEW,
        )
    if not (found.options.create_publication and found.publication.owned):
        return []
    done = []
    surplus = sorted(found.publication.listed.difference(found.tables))
    for verb, only, tables in (("ADD", "ONLY ", missing), ("DROP", "", surplus)):
        if tables:
            listed = ", ".join(only + quoted_table(table) for table in tables)
            _execute(connection, f"ALTER PUBLICATION {quoted(name)} {verb} TABLE {listed}")
            change = "added to" if verb == "ADD" else "dropped from"
            done.append(f"{change} publication {name}: {', '.join(map(str, tables))}")
    return done


def replace_slot(connection: Connection, options: SourceOptions, name: str, application_name: str) -> NewSlot:
    """Create the slot, dropping one of the same name that nobody uses.

    Raises:
        TransientError: the slot is in use, or older transactions did not end in time.
    """
    slot = read_slot(connection, name)
    if slot is not None:
        if slot.active_pid is not None:
            raise _in_use(name, slot.active_pid)
        if slot.plugin != "pgoutput" or not slot.here:
            raise SetupError(f"slot {name!r} exists and is not ours", hint="set another slot in [source]")
        drop_slot(connection, name)
    return create_slot(connection, options, name, application_name)


def create_slot(
    connection: Connection, options: SourceOptions, name: str, application_name: str, *, temporary: bool = False
) -> NewSlot:
    """Create a slot with an exported snapshot on a new replication session, within `options.slot_timeout`.

    A slot whose creation is given up does not stay behind: the server drops it with the failed command.

    Raises:
        TransientError: older transactions did not end in time; the message names their processes.
    """
    session = connect(options, application_name=application_name, replication=True, idle_in_transaction_timeout=0)
    version = session.info.server_version
    clauses = ["SNAPSHOT 'export'"] if version >= 150000 else ["EXPORT_SNAPSHOT"]
    if options.failover and version >= 170000 and not temporary:
        clauses.append("FAILOVER true")
    listed = f"({', '.join(clauses)})" if version >= 150000 else clauses[0]
    kind = " TEMPORARY" if temporary else ""
    statement = f"CREATE_REPLICATION_SLOT {quoted(name)}{kind} LOGICAL pgoutput {listed}"
    blockers: list[str] = []

    def give_up() -> None:
        # Asked first: once the command is cancelled, nobody is waiting any more.
        with suppress(CdcrepError):
            row = query_one(connection, WRITERS)
            blockers.append(row[0] if row else "none")
        with suppress(psycopg.Error):
            session.cancel_safe(timeout=5)

    timer = threading.Timer(options.slot_timeout, give_up)
    timer.daemon = True
    timer.start()
    try:
        system = session.execute(b"IDENTIFY_SYSTEM").fetchone()
        row = session.execute(statement.encode()).fetchone()
    except psycopg.Error as error:
        session.close()
        if sqlstate(error) == QUERY_CANCELED:
            raise TransientError(
                f"slot {name!r} was not created within {options.slot_timeout:g} s, because transactions that began "
                f"earlier are still open; processes of the server: {''.join(blockers) or 'unknown'}",
                hint="end them, or raise slot_timeout in [source]",
            ) from translate(error, "creating the slot")
        raise translate(error, f"creating slot {name!r}") from error
    finally:
        timer.cancel()
    assert row is not None, "the server answers with one row"
    assert system is not None, "the server answers with one row"
    return NewSlot(session, int(system[0]), int(system[1]), parse_lsn(row[1]), row[2])


def drop_slot(connection: Connection, name: str) -> None:
    """Drop a slot that nobody uses."""
    query_one(connection, "SELECT pg_drop_replication_slot(%s)", [name])


def tear_down(found_slot: str, found_publication: str, connection: Connection, *, own_publication: bool) -> list[str]:
    """Drop slot and publication as far as they exist; say what was done.

    Raises:
        TransientError: the slot is in use, also after a while.
    """
    done = []
    deadline = time.monotonic() + RELEASE_SECONDS
    while (slot := read_slot(connection, found_slot)) is not None and slot.active_pid is not None:
        # A server process outlives its client's good-bye for a moment, under load for seconds.
        if time.monotonic() > deadline:
            raise _in_use(found_slot, slot.active_pid)
        time.sleep(RELEASE_PAUSE_SECONDS)
    if slot is not None:
        drop_slot(connection, found_slot)
        done.append(f"dropped slot {found_slot}")
    publication = read_publication(connection, found_publication)
    if publication is not None and own_publication and publication.owned:
        _execute(connection, f"DROP PUBLICATION {quoted(found_publication)}")
        done.append(f"dropped publication {found_publication}")
    return done


def _in_use(name: str, pid: int) -> TransientError:
    return TransientError(
        f"slot {name!r} is in use by process {pid} of the server",
        hint=f"stop the other cdcrep, or end its session: SELECT pg_terminate_backend({pid})",
    )


def _execute(connection: Connection, statement: str) -> None:
    words: Sequence[str] = statement.split()[:2]
    try:
        connection.execute(statement.encode())
    except psycopg.Error as error:
        raise translate(error, f"running {' '.join(words)} at the source") from error
