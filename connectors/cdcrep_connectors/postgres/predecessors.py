"""Takes a pipeline over from processes before: what those left open in the target would keep us waiting.

The fence alone decides who may commit: a session with an older epoch than the checkpoint row's cannot. This module
only sees to it that such sessions, of a process that is stopped or behind a broken network, do not hold locks until
their limits end them. Sessions that write for a pipeline therefore bear a mark, their epoch, as a shared advisory lock.
"""

from __future__ import annotations

from typing import Final

import psycopg
import structlog
from psycopg.types.numeric import Int8

from cdcrep.errors import TransientError
from cdcrep_connectors.postgres import checkpoint
from cdcrep_connectors.postgres.checkpoint import Fence
from cdcrep_connectors.postgres.failures import translate
from cdcrep_connectors.postgres.session import Session
from cdcrep_connectors.relational.claim import Claim

log = structlog.get_logger(__name__)

PATIENCE_SECONDS: Final = 2.0
"""How long a predecessor that is just committing is waited for. It needs the row for one round trip."""

MARK: Final = "SELECT pg_advisory_lock_shared(hashtext($1), least($2, 2147483647)::integer)"

END: Final = """
    SELECT a.pid, pg_terminate_backend(a.pid, 5000)
    FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
    WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.database = a.datid
        AND l.classid = hashtext($1)::oid AND l.objid::bigint < $2
        AND a.datname = current_database() AND a.application_name = current_setting('application_name')
        AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL"""
"""Names are compared, too: two pipelines' names may have one hash."""

WAITING_FOR_CLIENT: Final = " AND a.wait_event_type = 'Client'"

HOLDERS: Final = """
    SELECT DISTINCT pid FROM pg_locks l
    WHERE locktype = 'relation' AND relation = 'cdcrep.checkpoints'::regclass AND granted AND pid <> pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND mode NOT IN ('AccessShareLock', 'ShareUpdateExclusiveLock')
        AND NOT EXISTS (SELECT FROM pg_locks w WHERE w.pid = l.pid AND NOT w.granted)
    ORDER BY pid"""
"""Visible to every role, unlike what the sessions of others do. Readers and vacuum do not keep the row from us."""

WAITED_IN_VAIN: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled)


def take_over(session: Session, claim: Claim) -> Fence:
    """Take the pipeline's row by raising its epoch, and end the transactions that predecessors have left open.

    A predecessor that is just committing may finish. One that does not go on is ended before: if its transaction
    held the row it is rolled back, and the position that we then read is the one before it.

    Raises:
        DivergedError: another process has taken it.
        TransientError: other sessions keep the row locked; names them.
    """
    # Not SET LOCAL in a transaction: who is stopped between its statements would hold the row, not yet marked.
    session.execute(f"SET lock_timeout = '{PATIENCE_SECONDS}s'")
    try:
        fence = checkpoint.take(session, claim)
        session.execute("RESET lock_timeout")
    except WAITED_IN_VAIN:
        session.execute("RESET lock_timeout")
        _end(session, END + WAITING_FOR_CLIENT, claim.pipeline, 2**31)
        fence = _insist(session, claim)
    mark(session, fence)
    _end(session, END, claim.pipeline, fence.epoch)
    return fence


def mark(session: Session, fence: Fence) -> None:
    """Let successors know the session; until it ends."""
    session.execute(MARK, fence.pipeline, Int8(fence.epoch))


def _insist(session: Session, claim: Claim) -> Fence:
    try:
        return checkpoint.take(session, claim)
    except WAITED_IN_VAIN as error:
        pids = [pid for (pid,) in session.fetch(HOLDERS) if pid is not None]
        ending = ", ".join(f"pg_terminate_backend({pid})" for pid in pids)
        raise TransientError(
            f"the checkpoint row of pipeline {claim.pipeline!r} is locked in the target, by processes of the server: "
            f"{', '.join(map(str, pids)) or 'unknown'}",
            hint=f"stop the cdcrep that they belong to, or end its sessions: SELECT {ending};" if pids else None,
        ) from translate(error, "opening the target")


def _end(session: Session, statement: str, pipeline: str, before_epoch: int) -> None:
    try:
        ended = session.fetch(statement, pipeline, Int8(before_epoch))
    except psycopg.errors.InsufficientPrivilege:
        # Another role's. If they are in our way we shall wait in vain, and name them then.
        return
    if ended:
        log.warning("ended sessions that a process before has left open", processes=[pid for pid, _ in ended])
