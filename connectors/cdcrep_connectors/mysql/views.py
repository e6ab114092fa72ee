"""Opens sessions that all see the tables as they were at one place in the log.

MySQL and MariaDB cannot hand a view from one session to another. MariaDB tells each session where in the log its view
is (`binlog_snapshot_position`): the views are opened again until they are the same, and nobody is locked out. MySQL
does not, and a busy MariaDB may not let it come to that: then writers are locked out for a moment (`writer_locks`), the
sessions open their views, the log's end is read, and the lock is released.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cdcrep.errors import SetupError, TransientError
from cdcrep.position import Position
from cdcrep_connectors.mysql.connection import Connection, connect, is_mariadb
from cdcrep_connectors.mysql.continuity import place_now, query
from cdcrep_connectors.mysql.log_files import begun_at
from cdcrep_connectors.mysql.mariadb_gtid import MariadbGtidState
from cdcrep_connectors.mysql.options import SourceOptions
from cdcrep_connectors.mysql.position import Place, Progress
from cdcrep_connectors.mysql.replication import random_server_id
from cdcrep_connectors.mysql.writer_locks import server_locked

OPEN: Final = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
ATTEMPTS_SECONDS: Final = 2.0
"""For which views are opened without a lock until they are the same."""

A_YEAR: Final = "31536000"
SETTINGS: Final = {
    # Bytes as they are stored: text is decoded here, exactly as that of the log.
    "character_set_results": "NULL",
    # The target may take its time with a chunk, and a view waits until its last chunk is done.
    "net_write_timeout": A_YEAR,
    "wait_timeout": A_YEAR,
}


def open_session(options: SourceOptions, program_name: str) -> Connection:
    """Open a session that can wait for a target, however slow."""
    session = connect(
        options,
        program_name=program_name,
        statement_timeout=0,
        lock_timeout=options.lock_timeout,
        settings=SETTINGS,
    )
    # Every value as the server writes it.
    session.decoders = {}
    if is_mariadb(session):
        query(session, "SET SESSION idle_transaction_timeout = 0, SESSION idle_readonly_transaction_timeout = 0")
    else:
        # Sizes of tables as they are, not as they were a day ago.
        query(session, "SET SESSION information_schema_stats_expiry = 0")
    return session


def open_views(
    sessions: Sequence[Connection], options: SourceOptions, program_name: str, *, locked: bool = False
) -> Position:
    """Open a view in each session at one place in the log; return its position.

    `locked`: the caller holds those out meanwhile that write the tables that matter (`tables_locked`).

    Raises:
        ServerLockRefusedError: the user may not lock writers out of the server, and they are not `locked` out.
        SetupError: there is no binary log.
        TransientError: the lock cannot be had, or an XA transaction is prepared.
    """
    if locked:
        # MariaDB keeps no lock on the tables of one whose client is gone: it could be committed between the views.
        _refuse_prepared(sessions[0])
        place = _open_each(sessions, sessions[0])
    else:
        found = _open_without_lock(sessions) if is_mariadb(sessions[0]) else None
        place = _open_under_lock(sessions, options, program_name) if found is None else found
    _refuse_prepared(sessions[0])
    connection = connect(options, program_name=program_name, statement_timeout=0, lock_timeout=options.lock_timeout)
    begun = begun_at(connection, place.begin.file, options.server_id or random_server_id())
    return replace(place, created=begun).position()


def _open_without_lock(sessions: Sequence[Connection]) -> Place | None:
    """Open views that happen to be the same; None: they are not, writers are too quick or commit by XA."""
    until = time.monotonic() + ATTEMPTS_SECONDS
    committed = _xa_commits(sessions[0])
    seen = [_open(session) for session in sessions]
    while len(set(seen)) > 1:
        if time.monotonic() > until:
            return None
        newest = max(seen, key=lambda place: Progress(None, *place).order())
        # Those that are older are opened anew, and may then be newer than the others.
        seen = [place if place == newest else _open(session) for session, place in zip(sessions, seen, strict=True)]
    asking = sessions[0]
    if seen[0] == ("", 0) or committed is None or _xa_commits(asking) != committed:
        return None
    ((server, gtids),) = query(asking, "SELECT @@global.server_id, binlog_gtid_pos(%s, %s)", *seen[0])
    if gtids is None:
        return None
    text = _text(gtids)
    reached = Progress(MariadbGtidState.parse(text) if text else None, *seen[0])
    return Place(_text(server), True, reached, reached)


def _xa_commits(session: Connection) -> int | None:
    """Count the XA COMMITs so far; None while a transaction is prepared, whose commit may be under way.

    MariaDB logs them before they can be seen, and a view opened in between counts them as seen.
    """
    ((_, count),) = query(session, "SHOW GLOBAL STATUS LIKE 'Com\\_xa\\_commit'")
    return None if query(session, "XA RECOVER") else int(_text(count))


def _open(session: Connection) -> tuple[str, int]:
    """Open a view anew; return file and offset of the log that it shows, or ("", 0)."""
    query(session, "COMMIT")
    query(session, OPEN)
    status = dict(query(session, "SHOW SESSION STATUS LIKE 'binlog\\_snapshot\\_%'"))
    found = {_text(name).lower(): _text(value) for name, value in status.items()}
    file, offset = found.get("binlog_snapshot_file", ""), found.get("binlog_snapshot_position", "")
    return (file, int(offset)) if file and offset.isdecimal() else ("", 0)


def _open_under_lock(sessions: Sequence[Connection], options: SourceOptions, program_name: str) -> Place:
    with server_locked(options, program_name) as locking:
        return _open_each(sessions, locking)


def _open_each(sessions: Sequence[Connection], asking: Connection) -> Place:
    """Open a view in each session while no writer matters; return where the log ends then."""
    for session in sessions:
        query(session, "COMMIT")
        query(session, OPEN)
    return place_now(asking)


def _refuse_prepared(session: Connection) -> None:
    """Refuse a moment at which an XA transaction is prepared: its changes lie before the position, unseen.

    Who may not ask learns of it when the transaction is committed, and so does who asks too late: the stream stops.
    """
    try:
        prepared = query(session, "XA RECOVER")
    except SetupError:
        return
    if prepared:
        raise TransientError(
            f"{len(prepared)} XA transactions are prepared, whose changes neither the copy nor the stream would show",
            hint="XA COMMIT or XA ROLLBACK them: XA RECOVER names them",
        )


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
