"""Positions in a binary log: which server, which transactions are behind, where its file stands.

    mysql/<server uuid>/<GTID set>/<file>:<offset>[/<GTID set>/<file>:<offset>]
    mariadb/<server id>/<last GTID per domain>/<file>:<offset>[/…]

Behind them may stand `/nulled=<count>`, how many dates became NULL because no calendar has them, and
`/created=<seconds>`, when the file was begun: after a reset another one may have its name, and others its GTIDs.

The second pair, where there is one, is where reading must begin again: before the oldest XA transaction that is
prepared and neither committed nor rolled back. Without GTIDs their field is empty and the file alone counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from cdcrep.errors import DataError, DivergedError
from cdcrep.position import Position
from cdcrep_connectors.mysql.gtid_sets import GtidSet
from cdcrep_connectors.mysql.mariadb_gtid import MariadbGtidState
from cdcrep_connectors.mysql.replication import AfterGtidList, AfterGtids, AtFile, StartingPoint

Gtids = GtidSet | MariadbGtidState | None
"""None: the server numbers no transactions, or none has been numbered."""

_FILE: Final = re.compile(r"(.*[^.]\.)([0-9]+):([0-9]+)", re.DOTALL)


@dataclass(frozen=True)
class Progress:
    """Which transactions are behind."""

    gtids: Gtids
    file: str
    offset: int

    def starting_point(self) -> StartingPoint:
        """Return what to ask the server for."""
        if isinstance(self.gtids, GtidSet):
            return AfterGtids(self.gtids.encode())
        if isinstance(self.gtids, MariadbGtidState):
            return AfterGtidList(str(self.gtids))
        return AtFile(self.file, self.offset)

    def contains(self, other: Progress) -> bool:
        """Tell whether all that is behind the other is behind this one."""
        if isinstance(self.gtids, GtidSet) and isinstance(other.gtids, GtidSet):
            return self.gtids.contains(other.gtids)
        if isinstance(self.gtids, MariadbGtidState) and isinstance(other.gtids, MariadbGtidState):
            return self.gtids.contains(other.gtids) and not self.gtids.forked_from(other.gtids)
        return self.order() >= other.order()

    def order(self) -> tuple[int, int]:
        """Return what orders the places of one server's log."""
        match = _FILE.fullmatch(f"{self.file}:{self.offset}")
        if match is None:
            raise DataError(f"the source's binary log has a file name without a number: {self.file!r}")
        return int(match[2]), int(match[3])

    def __str__(self) -> str:
        """Write as a part of a position."""
        return f"{self.gtids if self.gtids is not None else ''}/{self.file}:{self.offset}"


@dataclass(frozen=True)
class Place:
    """A position taken apart."""

    server: str
    """MySQL: the server's uuid; MariaDB: its id."""
    mariadb: bool
    reached: Progress
    begin: Progress
    """Where reading must begin: at `reached`, or before it for the sake of prepared XA transactions."""
    nulled: int = 0
    """Dates that no calendar has and that became NULL, up to `reached`."""
    created: int = 0
    """When the file of `begin` was begun, in seconds since 1970; 0: not known."""

    def at(self, reached: Progress, begin: Progress | None = None) -> Place:
        """Return another place of the same server."""
        return replace(self, reached=reached, begin=begin or reached)

    def position(self) -> Position:
        """Write it."""
        begin = "" if self.begin == self.reached else f"/{self.begin}"
        more = f"/nulled={self.nulled}" * (self.nulled > 0) + f"/created={self.created}" * (self.created > 0)
        return Position(f"{'mariadb' if self.mariadb else 'mysql'}/{self.server}/{self.reached}{begin}{more}")


def parse_position(position: Position) -> Place:
    """Read a position.

    Raises:
        DivergedError: it was not written by `Place.position`, so the checkpoint belongs to something else.
    """
    fields = position.split("/")
    created = fields.pop().removeprefix("created=") if fields[-1].startswith("created=") else "0"
    nulled = fields.pop().removeprefix("nulled=") if fields[-1].startswith("nulled=") else "0"
    try:
        if fields[0] not in ("mysql", "mariadb") or len(fields) not in (4, 6):
            raise ValueError
        mariadb = fields[0] == "mariadb"
        reached = _progress(fields[2], fields[3], mariadb)
        begin = _progress(fields[4], fields[5], mariadb) if len(fields) == 6 else reached
        numbers = int(nulled), int(created)
    except (ValueError, DataError):
        raise DivergedError(
            f"the position {position[:80]!r} is not one of a MySQL or MariaDB server",
            hint="the target follows another kind of source under this pipeline name: choose another name",
        ) from None
    return Place(fields[1], mariadb, reached, begin, *numbers)


def _progress(gtids: str, place: str, mariadb: bool) -> Progress:
    file, _, offset = place.rpartition(":")
    found: Gtids = None
    if gtids:
        found = MariadbGtidState.parse(gtids) if mariadb else GtidSet.parse(gtids)
    progress = Progress(found, file, int(offset))
    progress.order()
    return progress
