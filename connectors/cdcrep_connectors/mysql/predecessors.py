"""Takes a pipeline over from processes before: what those left open in the target would keep us waiting.

The fence alone decides who may commit: a session with an older epoch than the checkpoint row's cannot. This module
only sees to it that such sessions, of a process that is stopped or behind a broken network, do not hold locks until the
server gives them up, hours later. Sessions that write for a pipeline therefore bear a mark with their epoch, a named
lock, whose owner every user may ask for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import pymysql
import structlog
from pymysql.constants import ER

from cdcrep.errors import TransientError
from cdcrep_connectors.mysql.checkpoint import Fence
from cdcrep_connectors.mysql.failures import translate
from cdcrep_connectors.mysql.session import Session
from cdcrep_connectors.relational.claim import Claim, fenced

log = structlog.get_logger(__name__)

MOST_SESSIONS: Final = 64
"""Sessions of one process that a successor looks for."""

PATIENCE_SECONDS: Final = 2
"""How long a predecessor that is just committing is waited for. It needs the row for one round trip."""

TAKE: Final = (
    "UPDATE cdcrep.checkpoints SET source = %s, epoch = LAST_INSERT_ID(epoch + 1), owner = %s "
    "WHERE pipeline = %s AND (%s IS NULL OR epoch = %s OR owner = %s)"
)


def take_over(session: Session, claim: Claim) -> Fence:
    """Take the pipeline's row by raising its epoch, and end the sessions that predecessors have left open.

    A predecessor that is just committing may finish. One that does not go on is ended before: if its transaction held
    the row it is rolled back, and the position that we then read is the one before it.

    Raises:
        DivergedError: another process has taken it.
        TransientError: other sessions keep the row locked; names them.
    """
    pipeline = claim.pipeline
    before = session.fetch("SELECT epoch, owner FROM cdcrep.checkpoints WHERE pipeline = %s", pipeline)
    epoch, earlier = before[0] if before else (0, None)
    if not claim.allows(epoch, earlier):
        raise fenced(pipeline)
    if not before:
        session.execute(
            "INSERT IGNORE INTO cdcrep.checkpoints (pipeline, source, epoch, owner, updated_at) "
            "VALUES (%s, %s, 0, '', NOW(6))",
            pipeline,
            claim.source,
        )
    try:
        with session.lock_wait(PATIENCE_SECONDS):
            ours = _take(session, claim)
    except pymysql.OperationalError as error:
        if error.args[0] != ER.LOCK_WAIT_TIMEOUT:
            raise
        _end_sessions(session, pipeline, [epoch])
        ours = _insist(session, claim)
    if ours is None:
        raise fenced(pipeline)
    mark(session, pipeline, ours, 0)
    _end_sessions(session, pipeline, range(epoch, ours))
    ((position,),) = session.fetch("SELECT position FROM cdcrep.checkpoints WHERE pipeline = %s", pipeline)
    return Fence(pipeline, ours, position)


def mark(session: Session, pipeline: str, epoch: int, number: int) -> None:
    """Let successors know the session, by a lock that the server takes back when it ends."""
    session.fetch("SELECT GET_LOCK(%s, 0)", _mark(pipeline, epoch, number % MOST_SESSIONS))


def _take(session: Session, claim: Claim) -> int | None:
    """Raise the epoch in one statement, so that nobody can be stopped while he holds the row; None: not ours."""
    owner, replacing = claim.owner, claim.replacing
    taken = session.execute(TAKE, claim.source, owner, claim.pipeline, replacing, replacing, owner)
    if not taken:
        return None
    ((epoch,),) = session.fetch("SELECT LAST_INSERT_ID()")
    return int(epoch)


def _insist(session: Session, claim: Claim) -> int | None:
    try:
        return _take(session, claim)
    except pymysql.OperationalError as error:
        if error.args[0] != ER.LOCK_WAIT_TIMEOUT:
            raise
        pipeline = claim.pipeline
        ((epoch,),) = session.fetch("SELECT epoch FROM cdcrep.checkpoints WHERE pipeline = %s", pipeline)
        sessions = _marked(session, pipeline, epoch)
        raise TransientError(
            f"the checkpoint row of pipeline {pipeline!r} is locked in the target, by its sessions: "
            f"{', '.join(map(str, sessions)) or 'unknown'}",
            hint=f"stop the cdcrep that they belong to, or end them: {' '.join(f'KILL {id_};' for id_ in sessions)}"
            if sessions
            else None,
        ) from translate(error, "opening the target")


def _end_sessions(session: Session, pipeline: str, epochs: Iterable[int]) -> None:
    ended = [id_ for epoch in epochs for id_ in _marked(session, pipeline, epoch) if session.kill(id_)]
    if ended:
        log.warning("ended sessions that a process before has left open", sessions=ended)


def _marked(session: Session, pipeline: str, epoch: int) -> list[int]:
    """Return the sessions that bear marks of an epoch."""
    names = [_mark(pipeline, epoch, number) for number in range(MOST_SESSIONS)]
    (found,) = session.fetch(f"SELECT {', '.join(['IS_USED_LOCK(%s)'] * len(names))}", *names)
    return sorted({int(id_) for id_ in found if id_ is not None})


def _mark(pipeline: str, epoch: int, number: int) -> str:
    return f"cdcrep.{hashlib.sha256(pipeline.encode()).hexdigest()[:24]}.{epoch}.{number}"
