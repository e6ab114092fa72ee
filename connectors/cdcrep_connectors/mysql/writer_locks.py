"""Locks writers out of a server, or of tables, for the moment in which views are opened.

`FLUSH TABLES WITH READ LOCK` stops all commits. Who may not use it, as on many managed servers, locks the tables alone:
`LOCK TABLES … READ` is granted when every transaction that wrote one of them has ended, which is after its changes can
be seen and its place in the log is taken, and nobody writes them before `UNLOCK TABLES`. So any view that is opened
meanwhile shows of these tables what the log holds up to any place that is read meanwhile. Other tables go on.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from cdcrep.errors import CdcrepError, SetupError, TransientError
from cdcrep.table import TableId
from cdcrep_connectors.mysql.connection import Connection, connect, is_mariadb
from cdcrep_connectors.mysql.continuity import query
from cdcrep_connectors.mysql.options import SourceOptions
from cdcrep_connectors.mysql.replication import hang_up
from cdcrep_connectors.mysql.sql_text import quoted_table

LOCK_SECONDS: Final = 1.0
"""For which one attempt to lock writers out may last: whoever waits behind it, waits as long.

A writer that holds rows another one waits for can itself wait behind the lock that waits for both. The server does not
see that; only giving up lets them go on.
"""

PAUSE_SECONDS: Final = 0.5
"""Mean pause between two attempts, in which the writers go on."""


class ServerLockRefusedError(SetupError):
    """The user may not lock writers out of the server."""


@contextmanager
def server_locked(options: SourceOptions, program_name: str) -> Iterator[Connection]:
    """Lock writers out of the server for the block; yield the session that does it.

    Raises:
        ServerLockRefusedError: the user may not.
        TransientError: the lock cannot be had.
    """
    with _session(options, program_name) as locking:
        try:
            _patiently(options)(query, locking, "FLUSH TABLES WITH READ LOCK")
        except SetupError as error:
            raise ServerLockRefusedError(error.message, hint=error.hint) from error
        yield locking
        query(locking, "UNLOCK TABLES")


@contextmanager
def tables_locked(tables: Sequence[TableId], options: SourceOptions, program_name: str) -> Iterator[None]:
    """Lock writers out of tables for the block.

    Raises:
        SetupError: the user may not.
        TransientError: the locks cannot be had; or the user may not, but needs none once the writers pause (MariaDB).
    """
    listed = ", ".join(f"{quoted_table(table)} READ" for table in tables)
    with _session(options, program_name) as locking, _session(options, program_name) as killing:
        try:
            _patiently(options)(_query_in_time, locking, f"LOCK TABLES {listed}", killing)
        except SetupError as error:
            failure = TransientError if is_mariadb(locking) else SetupError
            raise failure(
                f"writers cannot be locked out for the moment in which a copy begins: {error.message}",
                hint="GRANT RELOAD ON *.*, or LOCK TABLES and SELECT on the tables; `cdcrep check` says to whom",
            ) from error
        yield
        # Where the session was lost, the locks were not held until here.
        query(locking, "UNLOCK TABLES")


@contextmanager
def _session(options: SourceOptions, program_name: str) -> Iterator[Connection]:
    session = connect(
        options, program_name=program_name, statement_timeout=options.lock_timeout, lock_timeout=LOCK_SECONDS
    )
    try:
        yield session
    finally:
        with suppress(CdcrepError):
            hang_up(session)


def _patiently(options: SourceOptions) -> Retrying:
    return Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(max(math.ceil(options.lock_timeout / LOCK_SECONDS), 1)),
        wait=wait_random(0, 2 * PAUSE_SECONDS),
        reraise=True,
    )


def _query_in_time(session: Connection, statement: str, killing: Connection) -> None:
    """Run a statement for LOCK_SECONDS at most: the server's own limit counts for each of its tables anew."""
    number = session.thread_id()  # type: ignore[no-untyped-call]
    ended = threading.Event()

    def watch() -> None:
        if not ended.wait(LOCK_SECONDS):
            with suppress(CdcrepError):
                query(killing, f"KILL QUERY {number}")

    watcher = threading.Thread(target=watch, name="lock-watch", daemon=True)
    watcher.start()
    try:
        query(session, statement)
    finally:
        ended.set()
        watcher.join()
        # Where the statement had ended before, the server may end the next one instead.
        with suppress(CdcrepError):
            query(session, "DO 0")
