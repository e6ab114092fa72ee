"""Listeners of a running pipeline: the figures of a first copy, and log lines."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from cdcrep.errors import CdcrepError
from cdcrep.events import Events
from cdcrep.position import Position
from cdcrep.table import TableId

SECONDS_BETWEEN_LINES: Final = 5.0


@dataclass
class CopyFigures:
    """How far a first copy is."""

    estimates: Mapping[TableId, tuple[int, int]]
    rows: int = 0
    bytes: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, rows: int, size: int) -> None:
        """Count rows and bytes that were copied."""
        self.rows += rows
        self.bytes += size

    @property
    def fraction(self) -> float | None:
        """Part that is done, 0 to 1, by rows where their number was estimated, else by bytes; None: unknown."""
        rows, size = (sum(estimate[i] for estimate in self.estimates.values()) for i in (0, 1))
        if rows > 0:
            return min(self.rows / rows, 1.0)
        return min(self.bytes / size, 1.0) if size > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the pace so far; None: too early to tell."""
        elapsed = time.monotonic() - self.began
        return elapsed * (1 - self.fraction) / self.fraction if self.fraction and elapsed > 0 else None


class Everyone:
    """Passes every event on to several listeners."""

    def __init__(self, listeners: Sequence[Events]) -> None:
        self._listeners = tuple(listeners)

    def state(self, state: str) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.state(state)

    def note(self, message: str) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.note(message)

    def copy_started(self, tables: Mapping[TableId, tuple[int, int]]) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.copy_started(tables)

    def copy_progress(self, table: TableId, rows: int, size: int) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.copy_progress(table, rows, size)

    def copy_finished(self) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.copy_finished()

    def applied(
        self, rows: int, transactions: int, position: Position | None, commit_time: float | None, seconds: float
    ) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.applied(rows, transactions, position, commit_time, seconds)

    def retry(self, error: CdcrepError, attempt: int, wait_seconds: float) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.retry(error, attempt, wait_seconds)


class LogLines:
    """Writes events to the log; progress at most every few seconds."""

    def __init__(self, pipeline: str, *, seconds_between_lines: float = SECONDS_BETWEEN_LINES) -> None:
        self._log = structlog.get_logger().bind(pipeline=pipeline)
        self._pause = seconds_between_lines
        self._lock = threading.Lock()
        self._copy: CopyFigures | None = None
        self._last_line = time.monotonic()
        self._rows = self._transactions = 0

    def state(self, state: str) -> None:
        """Log every state."""
        self._log.info(state)

    def note(self, message: str) -> None:
        """Log every note."""
        self._log.info(message)

    def copy_started(self, tables: Mapping[TableId, tuple[int, int]]) -> None:
        """Log how much there is to copy."""
        self._copy = CopyFigures(tables)
        rows, size = (sum(estimate[i] for estimate in tables.values()) for i in (0, 1))
        self._log.info("copying", tables=len(tables), estimated_rows=rows, estimated_bytes=size)

    def copy_progress(self, table: TableId, rows: int, size: int) -> None:
        """Log the copy's totals, now and then."""
        with self._lock:
            copy = self._copy
            if copy is None:
                return
            copy.add(rows, size)
            if not self._is_time():
                return
            figures: dict[str, object] = {"table": str(table), "rows": copy.rows, "bytes": copy.bytes}
            if copy.fraction is not None:
                figures["percent"] = round(100 * copy.fraction, 1)
            if copy.seconds_left is not None:
                figures["seconds_left"] = round(copy.seconds_left)
        self._log.info("copying", **figures)

    def copy_finished(self) -> None:
        """Log the copy's totals."""
        copy = self._copy
        if copy is not None:
            seconds = round(time.monotonic() - copy.began, 1)
            self._log.info("copied", rows=copy.rows, bytes=copy.bytes, seconds=seconds)

    def applied(
        self, rows: int, transactions: int, position: Position | None, commit_time: float | None, seconds: float
    ) -> None:
        """Log the sums since the last line, now and then."""
        with self._lock:
            self._rows += rows
            self._transactions += transactions
            elapsed = time.monotonic() - self._last_line
            if not self._transactions or not self._is_time():
                return
            sums = {"transactions": self._transactions, "rows": self._rows}
            self._rows = self._transactions = 0
        lag = None if commit_time is None else round(max(0.0, time.time() - commit_time), 3)
        rate = round(sums["rows"] / elapsed)
        self._log.info(
            "applied", **sums, rows_per_second=rate, position=position, lag_seconds=lag, apply_seconds=round(seconds, 3)
        )

    def retry(self, error: CdcrepError, attempt: int, wait_seconds: float) -> None:
        """Log every failure."""
        self._log.warning(
            "failed, trying again", error=error.message, attempt=attempt, wait_seconds=round(wait_seconds, 1)
        )

    def _is_time(self) -> bool:
        now = time.monotonic()
        if now - self._last_line < self._pause:
            return False
        self._last_line = now
        return True
