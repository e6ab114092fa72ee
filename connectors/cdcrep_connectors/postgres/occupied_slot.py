"""Waits for a replication slot that a session holds, and ends the session of a process before that shows no life.

Who opens the stream holds the checkpoint row in the target: a process before may commit nothing any more, so its
session at the source is of no use to anybody. One that runs finds that out and hangs up; so that it does at an idle
source, too, there is something for it to receive. One that is stopped or cut off holds the slot until
`wal_sender_timeout` has passed, or for ever where that is 0. A process of the same name that writes to another target
is told apart by what it confirms.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import psycopg
import structlog
from psycopg import sql

from cdcrep.errors import TransientError

Connection = psycopg.Connection[Any]
Slot = Mapping[str, Any]

log = structlog.get_logger(__name__)

PAUSE_SECONDS: Final = 0.1

GRACE_SECONDS: Final = 10.0
"""How long a process that runs may take to hang up, beyond the interval in which it looks at the target."""

SILENCE_SECONDS: Final = 20.0
"""After so long without a confirmation, beyond the same interval, a process is taken for stopped or cut off. It sends
one at the latest every ten seconds."""

LONGEST_SECONDS: Final = 180.0
"""Longest wait for the server to end a session that we may not end."""

# Their status is hidden from ordinary roles, also that of their own sessions; these columns are not.
HOLDER: Final = """
SELECT application_name = current_setting('application_name') AND datname = current_database()
FROM pg_catalog.pg_stat_activity WHERE pid = {}
"""

# What the holder receives. No waiting for standbys.
NUDGE: Final = b"""
SELECT pg_catalog.set_config('synchronous_commit', 'local', false),
       pg_catalog.pg_logical_emit_message(true, 'cdcrep', '')
"""

TIMEOUT: Final = b"SELECT setting::int / 1000.0 FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'"


def wait_until_free(
    connection: Connection, name: str, look: Callable[[], Slot], interval: float, pause: Callable[[float], bool]
) -> None:
    """Return when nobody holds the slot `name` any more.

    `look` reads the slot and raises where it is of no use; `interval` is the time in seconds in which a process that
    runs confirms or notices something; `pause` waits for so many seconds and tells whether to give up.

    Raises:
        TransientError: somebody else holds the slot, or nobody may end the session that does.
    """
    slot = look()
    if not slot["active"]:
        return
    waiting = _Waiting(connection, name, slot, interval)
    while slot["active"]:
        waiting.go_on(slot)
        if pause(PAUSE_SECONDS):
            raise TransientError(f"stopped while waiting for the replication slot {name!r}")
        slot = look()


class _Waiting:
    """Remembers since when, for whom and how long."""

    def __init__(self, connection: Connection, name: str, slot: Slot, interval: float) -> None:
        self._connection, self._name = connection, name
        self._pid, self._confirmed = slot["active_pid"], slot["confirmed_flush_lsn"]
        self._began = time.monotonic()
        self._silence = interval + SILENCE_SECONDS
        self._grace = interval + GRACE_SECONDS
        self._may_end = self._is_predecessor()
        self._longest = self._patience() if self._may_end else self._grace
        log.warning(
            "waiting for the replication slot, which another session holds",
            slot=name,
            active_pid=self._pid,
            seconds_at_most=round(self._longest),
        )
        with contextlib.suppress(psycopg.Error):  # not permitted: who runs notices at the next change
            connection.execute(NUDGE)

    def go_on(self, slot: Slot) -> None:
        """End the session or give up, if it is time to."""
        waited = time.monotonic() - self._began
        if (slot["active_pid"], slot["confirmed_flush_lsn"]) != (self._pid, self._confirmed):
            # Alive, or replaced by one that is.
            self._may_end, self._longest = False, self._grace
        if self._may_end and waited > self._silence:
            self._may_end = False
            self._end()
        if waited > self._longest:
            pid = slot["active_pid"]
            raise TransientError(
                f"the replication slot {self._name!r} is in use by the server process {pid}",
                hint="another cdcrep may be running with this pipeline name; what the process is: "
                f"SELECT * FROM pg_stat_replication WHERE pid = {pid}; to end it: SELECT pg_terminate_backend({pid})",
            )

    def _is_predecessor(self) -> bool:
        rows = self._connection.execute(sql.SQL(HOLDER).format(sql.Literal(self._pid))).fetchall()
        return rows == [(True,)]

    def _patience(self) -> float:
        """Return how long the server itself may take to end a session whose client does not answer."""
        row = self._connection.execute(TIMEOUT).fetchone()
        server = float(row[0]) if row else 0.0
        return min(max(server, self._silence) + GRACE_SECONDS, LONGEST_SECONDS)

    def _end(self) -> None:
        statement = sql.SQL("SELECT pg_catalog.pg_terminate_backend({})").format(sql.Literal(self._pid))
        try:
            self._connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            return  # another role's: the server's own limit ends it
        log.warning(
            "ended the session at the replication slot that a process before has left", slot=self._name, pid=self._pid
        )
