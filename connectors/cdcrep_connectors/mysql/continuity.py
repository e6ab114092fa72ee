"""Compares a position with the server it is to be continued on, and asks the server where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from cdcrep.errors import DivergedError, SetupError, TransientError
from cdcrep_connectors.mysql.connection import Connection, is_mariadb
from cdcrep_connectors.mysql.failures import DRIVER_ERRORS, translate
from cdcrep_connectors.mysql.gtid_sets import GtidSet
from cdcrep_connectors.mysql.mariadb_gtid import MariadbGtidState
from cdcrep_connectors.mysql.position import Gtids, Place, Progress

AGAIN: Final = "the tables have to be copied anew: cdcrep teardown, then cdcrep run"

NO_LOG: Final = "set log_bin and server_id in the server's configuration and restart it"


@dataclass(frozen=True)
class ServerLog:
    """Where a server's binary log stands."""

    place: Place
    purged: Gtids
    """MySQL: the transactions that are no longer in any file."""
    files: Sequence[tuple[str, int]]
    """The files that exist and their sizes, oldest first."""

    def bytes_after(self, progress: Progress) -> int:
        """Count the log's bytes behind a place."""
        at = progress.order()
        sizes = ((Progress(None, name, size).order()[0], size) for name, size in self.files)
        return sum(size if number > at[0] else max(size - at[1], 0) for number, size in sizes if number >= at[0])


def query(connection: Connection, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run a statement and return its rows."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())
    except DRIVER_ERRORS as error:
        raise translate(error, "asking the source for its state") from error


def place_now(connection: Connection) -> Place:
    """Return a place at or after every transaction that has committed by now.

    Raises:
        SetupError: there is no binary log.
    """
    if is_mariadb(connection):
        ((server, gtids),) = query(connection, "SELECT @@global.server_id, @@global.gtid_binlog_pos")
        found: Gtids = MariadbGtidState.parse(str(gtids)) if gtids else None
        status = query(connection, "SHOW MASTER STATUS")
    else:
        ((server, gtids, mode),) = query(connection, "SELECT @@server_uuid, @@global.gtid_executed, @@global.gtid_mode")
        found = GtidSet.parse(str(gtids)) if gtids and str(mode).upper() == "ON" else None
        status = _mysql_status(connection)
    if not status:
        raise SetupError("the source writes no binary log", hint=NO_LOG)
    progress = Progress(found, str(status[0][0]), int(status[0][1]))
    return Place(str(server), is_mariadb(connection), progress, progress)


def read_log(connection: Connection) -> ServerLog:
    """Ask a server for everything that a position is compared with."""
    place = place_now(connection)
    purged: Gtids = None
    if not place.mariadb:
        ((text,),) = query(connection, "SELECT @@global.gtid_purged")
        purged = GtidSet.parse(str(text))
    files = [(str(row[0]), int(row[1])) for row in query(connection, "SHOW BINARY LOGS")]
    return ServerLog(place, purged, files)


def check_position(after: Place, log: ServerLog) -> Place:
    """Make sure that a server still has everything after a position, and has all that was before it.

    Returns the position as this server's: another server may go on where one left off that failed, if its log has all
    transactions that the target holds, which only GTIDs can tell.

    Raises:
        DivergedError: it is no such server, it lacks commits that the target holds, or has removed log that is needed.
    """
    now = log.place
    failed_over = after.server != now.server
    if after.mariadb != now.mariadb or (failed_over and (after.begin.gtids is None or now.reached.gtids is None)):
        what = "server_id" if now.mariadb else "server_uuid"
        raise DivergedError(
            f"the server is another one than the target was filled from: its {what} is {now.server}, the "
            f"checkpoint's {after.server}, and without GTIDs nobody can tell whether it has the same changes",
            hint=f"correct the source's URL; {AGAIN}",
        )
    if (after.begin.gtids is None) != (now.reached.gtids is None) and after.begin.gtids is not None:
        raise DivergedError("the server does not use GTIDs any more, which the position consists of", hint=AGAIN)
    if after.begin.gtids is not None and not now.reached.contains(after.reached):
        if failed_over:
            raise DivergedError(
                f"the server is another one than the target was filled from ({now.server} instead of {after.server}) "
                "and lacks transactions that the target holds",
                hint=f"correct the source's URL, or wait until the server has caught up; {AGAIN}",
            )
        raise DivergedError(
            "the target is ahead of the source: it holds transactions that the server does not have. The source was "
            "restored to an older point, its log was reset, or commits were lost in a failover",
            hint=AGAIN,
        )
    _check_kept(after, log, same_files=not failed_over)
    return replace(after, server=now.server, created=0 if failed_over else after.created)


def check_file(after: Place, begun: int) -> None:
    """Compare when a file was begun with what a position says of the file of this name.

    Raises:
        DivergedError: it is another one.
    """
    if after.created not in (0, begun):
        raise DivergedError(
            f"the server's log was reset: its file {after.begin.file} is another one than the target was filled from",
            hint=AGAIN,
        )


def check_history(before: Place, connection: Connection) -> None:
    """Make sure that a server still knows a place that a running stream has passed.

    Raises:
        DivergedError: its log was reset under the stream.
        TransientError: another server answers than the stream's, which has to begin again.
    """
    now = place_now(connection)
    if now.server != before.server:
        raise TransientError(f"the address leads to another server now: {now.server} instead of {before.server}")
    if not now.reached.contains(before.reached):
        raise DivergedError(
            "the server lacks transactions that its log had: the log was reset, or the server was restored", hint=AGAIN
        )


def _check_kept(after: Place, log: ServerLog, *, same_files: bool) -> None:
    begin = after.begin
    if isinstance(begin.gtids, GtidSet) and isinstance(log.purged, GtidSet):
        if missing := log.purged.subtract(begin.gtids):
            raise DivergedError(
                f"the server has removed log that is still needed: the transactions {_short(str(missing))} are gone",
                hint=f"raise binlog_expire_logs_seconds; {AGAIN}",
            )
        if same_files:
            _refuse_fewer_files(begin, log)
        return
    oldest = Progress(None, *log.files[0]).order()[0] if log.files else 0
    if begin.gtids is None:
        _check_end(begin, log, oldest)
    elif same_files and begin.order()[0] < oldest:
        raise DivergedError(
            f"the server has removed log that is still needed: {begin.file} is gone",
            hint=f"raise expire_logs_days; {AGAIN}",
        )
    elif same_files:
        _refuse_fewer_files(begin, log)


def _refuse_fewer_files(begin: Progress, log: ServerLog) -> None:
    """Refuse a log whose files count anew: GTIDs may be numbered anew as well, and name other transactions."""
    newest = Progress(None, *log.files[-1]) if log.files else log.place.reached
    if _series(newest) == _series(begin) and newest.order()[0] < begin.order()[0]:
        raise DivergedError(
            f"the server's log was reset: its files end with {newest.file}, the target was filled from {begin.file}",
            hint=AGAIN,
        )


def _series(progress: Progress) -> str:
    return progress.file.rpartition(".")[0]


def _check_end(begin: Progress, log: ServerLog, oldest: int) -> None:
    size = dict(log.files).get(begin.file)
    if size is not None and begin.offset <= size:
        return
    what = (
        "has removed log that is still needed"
        if begin.order()[0] < oldest
        else "does not have the log up to the target's position: it was restored to an older point or its log was reset"
    )
    raise DivergedError(f"the server {what}: {begin.file} at {begin.offset}", hint=AGAIN)


def _mysql_status(connection: Connection) -> list[tuple[Any, ...]]:
    """Ask for the log's end, by either of the statement's names."""
    ((version,),) = query(connection, "SELECT @@version")
    major, minor, *_ = (int(part) for part in str(version).split("-")[0].split("."))
    return query(connection, "SHOW BINARY LOG STATUS" if (major, minor) >= (8, 2) else "SHOW MASTER STATUS")


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]} …"
