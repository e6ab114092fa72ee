"""Finds out before a stream starts whether it can go on from a position without losing a change.

The server itself does not refuse: asked to start before what the slot has confirmed, it silently skips the gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql

from cdcrep.errors import DivergedError, SetupError
from cdcrep.position import Position
from cdcrep_connectors.postgres.lsn import Place, format_lsn, parse_lsn, parse_position

Connection = psycopg.Connection[Any]

AGAIN: Final = (
    'to copy everything again: `cdcrep teardown CONFIG`, then `cdcrep run CONFIG` with on_existing = "replace"'
)


@dataclass(frozen=True)
class System:
    """What IDENTIFY_SYSTEM says."""

    identifier: int
    timeline: int
    flushed: int
    """LSN up to which the log is on the server's disk."""
    database: str


def identify(replication: Connection) -> System:
    """Ask a replication connection which server it reaches."""
    row = replication.execute("IDENTIFY_SYSTEM").fetchone()
    assert row is not None
    return System(int(row[0]), int(row[1]), parse_lsn(row[2]), str(row[3]))


def check_position(after: Position, system: System, replication: Connection) -> Place:
    """Make sure that the position lies in this server's past.

    Raises:
        DivergedError: another cluster, another history, or a point that this server has not reached.
    """
    place = parse_position(after)
    if place.system != system.identifier:
        raise DivergedError(
            f"the server is another one than the target was filled from: its system identifier is {system.identifier}, "
            f"the checkpoint's {place.system}",
            hint=f"correct the source's URL; {AGAIN}",
        )
    if place.timeline != system.timeline:
        _check_timeline(place, system, replication)
    if place.lsn > system.flushed:
        raise DivergedError(
            f"the target is ahead of the source: the checkpoint is {format_lsn(place.lsn)}, the server's log ends at "
            f"{format_lsn(system.flushed)}. The source was restored to an older point, or lost commits in a failover",
            hint=AGAIN,
        )
    return place


def _check_timeline(place: Place, system: System, replication: Connection) -> None:
    fork = f"the server is on timeline {system.timeline}, the checkpoint {format_lsn(place.lsn)} on {place.timeline}"
    switch = None
    if place.timeline < system.timeline:
        row = replication.execute(f"TIMELINE_HISTORY {int(system.timeline)}".encode()).fetchone()
        assert row is not None
        content = row[1] if isinstance(row[1], str) else bytes(row[1]).decode(errors="replace")
        switch = switch_points(content).get(place.timeline)
    if switch is None:
        raise DivergedError(f"{fork}, which is not part of its history", hint=AGAIN)
    if place.lsn > switch:
        raise DivergedError(
            f"{fork}: the server left that timeline at {format_lsn(switch)}, so the target holds commits that this "
            "server never had",
            hint=AGAIN,
        )


def switch_points(history: str) -> dict[int, int]:
    """Read a timeline history file: timeline to the LSN at which it was left.

    One line per timeline, `number TAB lsn TAB reason`; `#` begins a comment.
    """
    points = {}
    for line in history.splitlines():
        fields = line.split("#")[0].split()
        if len(fields) >= 2:
            points[int(fields[0])] = parse_lsn(fields[1])
    return points


def read_slot(connection: Connection, name: str) -> Mapping[str, Any] | None:
    """Read a slot's row of pg_replication_slots, whose columns grow with the server's version; None: no such slot."""
    # A replication connection takes simple queries only, which have no parameters and cannot be prepared.
    query = sql.SQL("SELECT to_jsonb(s) FROM pg_catalog.pg_replication_slots AS s WHERE slot_name = {}")
    row = connection.execute(query.format(sql.Literal(name)), prepare=False).fetchone()
    return row[0] if row else None


def check_slot(connection: Connection, name: str, place: Place, database: str) -> Mapping[str, Any]:
    """Make sure that the slot still keeps everything after the position, whether or not it is in use; return its row.

    Raises:
        DivergedError: the slot is gone, invalid, or has moved past the position.
        SetupError: the slot is of another kind.
    """
    slot = read_slot(connection, name)
    here = format_lsn(place.lsn)
    if slot is None:
        raise DivergedError(
            f"the replication slot {name!r} does not exist any more: the changes after {here} are lost", hint=AGAIN
        )
    if slot["slot_type"] != "logical" or slot["plugin"] != "pgoutput" or slot["database"] != database:
        raise SetupError(
            f"the replication slot {name!r} is another one: type {slot['slot_type']}, plugin {slot['plugin']}, "
            f"database {slot['database']}; needed is a logical one with pgoutput in {database}",
            hint="set slot in [source] to another name, or drop that slot if nobody needs it",
        )
    reason = slot.get("invalidation_reason") or ("conflict" if slot.get("conflicting") else None)
    if reason or slot["wal_status"] == "lost" or slot["restart_lsn"] is None:
        raise DivergedError(
            f"the server has invalidated the replication slot {name!r} ({reason or 'its log was removed'}): the "
            f"changes after {here} are lost",
            hint=f"raise max_slot_wal_keep_size; {AGAIN}",
        )
    confirmed = parse_lsn(slot["confirmed_flush_lsn"])
    if confirmed > place.lsn:
        raise DivergedError(
            f"the replication slot {name!r} has moved on to {format_lsn(confirmed)}, the target stands at {here}: the "
            f"changes in these {confirmed - place.lsn} bytes of log are lost. The target was restored to an older "
            "point, or the slot was created anew or moved by somebody else",
            hint=AGAIN,
        )
    return slot
