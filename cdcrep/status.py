"""How a pipeline is doing, as one documented object: asked of the databases and, if there is one, of its process.

The keys are a promise to monitoring; docs/status.md explains each. Times are ISO 8601 in UTC, null is "not known".
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cdcrep.config import Config
from cdcrep.connector import Sink, Source, SourceStatus
from cdcrep.errors import CdcrepError
from cdcrep.position import Position
from cdcrep.redaction import redact
from cdcrep.supervise import State
from cdcrep.table import TableId

VERSION: Final = 1
"""Raised when a key changes its meaning or goes away."""

REPLICATING: Final = frozenset({State.STARTING, State.SNAPSHOTTING, State.STREAMING, State.DEDUPLICATING, State.PAUSED})


class Freshness:
    """Listens to a running pipeline for the moment up to which the target surely holds everything."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.up_to: float | None = None
        """Seconds since 1970; None: nothing has come yet."""

    def state(self, state: str) -> None:
        """Ignore."""

    def note(self, message: str) -> None:
        """Ignore."""

    def copy_started(self, tables: Mapping[TableId, tuple[int, int]]) -> None:
        """Ignore."""

    def copy_progress(self, table: TableId, rows: int, size: int) -> None:
        """Ignore."""

    def copy_finished(self) -> None:
        """Ignore."""

    def applied(
        self,
        rows: int,  # noqa: ARG002 - the protocol's
        transactions: int,
        position: Position | None,
        commit_time: float | None,
        seconds: float,  # noqa: ARG002 - the protocol's
    ) -> None:
        """Take a batch's commit time; a heartbeat says that there is nothing older than now."""
        if position is None:
            return
        up_to = commit_time if transactions else time.time()
        with self._lock:
            if up_to is not None:
                self.up_to = max(up_to, self.up_to or 0.0)

    def retry(self, error: CdcrepError, attempt: int, wait_seconds: float) -> None:
        """Ignore."""


def examine(
    config: Config,
    *,
    live: Mapping[str, Any] | None = None,
    sink: Sink | None = None,
    source: Source | None = None,
    fresh_up_to: float | None = None,
    last_error: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Look at both databases and make the status object.

    `live`, `sink`, `source` and `fresh_up_to` are the running process's own; without one they are None, and
    `last_error` is what the last process left behind.
    """
    target, target_error = _examine_target(config, sink)
    position = target.get("position")
    found, source_error = _examine_source(config, source, position)
    commit_time = target.get("commit_time")
    up_to = max((moment for moment in (fresh_up_to, commit_time) if moment is not None), default=None)
    lag_bytes = found.lag_bytes if found and position is not None else None
    if live and live.get("last_error"):
        last_error = {"message": redact(str(live["last_error"])), "at": None}
    return {
        "version": VERSION,
        "pipeline": config.name,
        "state": str(live["state"]) if live else _state_without_process(last_error),
        "pid": os.getpid() if live else None,
        "started_at": _iso(live.get("started")) if live else None,
        "position": position,
        "commit_time": _iso(commit_time),
        "updated_at": _iso(target.get("updated_at")),
        "lag": {"bytes": lag_bytes, "seconds": lag_seconds(lag_bytes, up_to, time.time())},
        "retained_bytes": found.retained_bytes if found else None,
        "transactions": target.get("transactions"),
        "rows": target.get("rows"),
        "failures_in_a_row": live.get("consecutive_failures", 0) if live else 0,
        "last_progress_at": _iso(live.get("last_progress")) if live else None,
        "last_error": dict(last_error) if last_error else None,
        "source": {
            "url": config.source_url,
            "position": found.position if found else None,
            "details": {key: redact(value) for key, value in found.details.items()} if found else {},
            "error": source_error,
        },
        "target": {
            "url": config.target_url,
            "epoch": target.get("epoch"),
            "owner": target.get("owner"),
            "error": target_error,
        },
        "tables": dict(sorted(target.get("tables", {}).items())),
    }


def lag_seconds(lag_bytes: int | None, fresh_up_to: float | None, now: float) -> float | None:
    """Return how old the oldest change may be that the target lacks: 0 if it lacks none, None if nobody knows."""
    if lag_bytes is not None and lag_bytes <= 0:
        return 0.0
    return None if fresh_up_to is None else round(max(0.0, now - fresh_up_to), 3)


def exit_code(status: Mapping[str, Any]) -> int:
    """Return 0 for a pipeline that replicates or is up to date, 1 for one that does not and is behind."""
    if status["pid"] is not None:
        return 0 if status["state"] in REPLICATING else 1
    return 0 if status["lag"]["bytes"] == 0 and status["last_error"] is None else 1


def remember_failure(path: Path, error: BaseException) -> None:
    """Leave the error that ended a process beside its socket, for `status`; what cannot be written is left out."""
    message = error.message if isinstance(error, CdcrepError) else type(error).__name__
    hint = error.hint if isinstance(error, CdcrepError) else None
    text = redact(message if not hint else f"{message} ({hint})")
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"message": text, "at": _iso(time.time())}, file)


def recall_failure(path: Path) -> dict[str, Any] | None:
    """Read what `remember_failure` left; None: nothing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {"message": str(found.get("message")), "at": found.get("at")} if isinstance(found, dict) else None


def _examine_source(
    config: Config, source: Source | None, position: Position | None
) -> tuple[SourceStatus | None, str | None]:
    asked = source or config.open_source()
    try:
        return asked.status(position), None
    except CdcrepError as error:
        return None, redact(error.message)
    finally:
        if source is None:
            asked.close()


def _examine_target(config: Config, sink: Sink | None) -> tuple[Mapping[str, Any], str | None]:
    asked = sink or config.open_sink()
    try:
        return asked.status(), None
    except CdcrepError as error:
        return {}, redact(error.message)
    finally:
        if sink is None:
            asked.close()


def _state_without_process(last_error: Mapping[str, Any] | None) -> str:
    return str(State.FAILED if last_error else State.STOPPED)


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
