"""Keeps one pipeline going: opens both sides, copies, streams, retries what may pass, stops for everything else."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

import tenacity

from cdcrep import preflight
from cdcrep.backfill import Backfill
from cdcrep.connector import Checkpoint, Pipeline, Sink, Source
from cdcrep.crashpoint import reached
from cdcrep.errors import CdcrepError, TransientError
from cdcrep.events import Events
from cdcrep.position import Position
from cdcrep.process import copying
from cdcrep.replicate import Applied, Replication
from cdcrep.table import TableId
from cdcrep.tidying import Tidying

CANCEL_AFTER_SECONDS = 3.0  # a stop shall end within 5 s; until then the batch in hand may still be finished


class State(StrEnum):
    """What a pipeline is doing: the same words in logs, status and metrics."""

    STARTING = "starting"
    SNAPSHOTTING = "snapshotting"
    STREAMING = "streaming"
    DEDUPLICATING = "deduplicating"
    RETRYING = "retrying"
    PAUSED = "paused"
    STOPPED = "stopped"
    FAILED = "failed"


class Opened(Protocol):
    """What the supervisor needs of a configuration."""

    @property
    def pipeline(self) -> Pipeline:
        """What both sides are constructed with."""

    @property
    def max_retries(self) -> int:
        """Consecutive failures without progress before the supervisor gives up."""

    def open_source(self) -> Source:
        """Construct a source."""

    def open_sink(self) -> Sink:
        """Construct a sink."""


class Supervisor:
    """Runs one pipeline until it is stopped, done, or cannot go on."""

    def __init__(
        self,
        opened: Opened,
        *,
        events: Events,
        until_current: bool = False,
        then_tear_down: bool = False,
        tidying: Tidying | None = None,
    ) -> None:
        self._opened, self._events = opened, events
        self._tidying = tidying or Tidying()
        self._until_current, self._then_tear_down = until_current, then_tear_down
        self._until: Position | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._running: Backfill | Replication | None = None
        self._source: Source | None = None
        self._sink: Sink | None = None
        self._examined: frozenset[TableId] | None = None
        self._owner = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"
        self._epoch: int | None = None
        self._detached = False
        self._failures = 0
        self._started = time.time()
        self._figures: dict[str, Any] = {"position": None, "commit_time": None, "rows": 0, "transactions": 0}
        self._last_error: str | None = None
        self._last_progress: float | None = None
        self.state = State.STARTING

    def run(self) -> None:
        """Replicate; returns after `stop` or when everything asked for is done, raises the error that ended it.

        TransientErrors are retried with exponential backoff and jitter until `max_retries` of them have followed each
        other without a batch or chunk becoming durable in between.
        """
        backoff = tenacity.wait_exponential_jitter(multiplier=0.25, max=30.0, jitter=0.25)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=lambda _: self._stopping.is_set() or self._failures > self._opened.max_retries,
            wait=lambda state: backoff(_numbered(state, self._failures)),
            after=self._failed,
            before_sleep=self._announce_retry,
            sleep=self._pause,
            reraise=True,
        )
        self._set_state(State.STARTING)
        try:
            retrying(self._once)
        except BaseException as error:
            if self._is_part_of_stopping(error):
                self._set_state(State.STOPPED)
                return
            self._note_end(error)
            raise
        self._set_state(State.STOPPED)

    def stop(self) -> None:
        """End soon: finish the batch in hand, or roll it back after a few seconds. Thread-safe; returns at once."""
        self._stopping.set()
        with self._lock:
            running, sink = self._running, self._sink
        if running is not None:
            running.stop()
        if sink is not None:
            timer = threading.Timer(CANCEL_AFTER_SECONDS, _quietly, [sink.cancel])
            timer.daemon = True
            timer.start()

    def overdue(self) -> BaseException | None:
        """Return the failure after which tidying up takes too long: the process then has to end without it."""
        return self._tidying.overdue()

    def abandon(self, failure: BaseException | None) -> None:
        """Give up waiting for `run`, whose thread is left behind.

        Raises the failure, or without one that which `run` is tidying up after, if there is any.
        """
        failure = failure or self._tidying.overdue(0.0)
        if failure is None or self._is_part_of_stopping(failure):
            return
        self._note_end(failure)
        raise failure

    def sink(self) -> Sink | None:
        """Return the sink while it is open, for queries beside replication."""
        return self._sink

    def source(self) -> Source | None:
        """Return the source while it is open: it knows what its stream has passed."""
        return self._source

    def live(self) -> Mapping[str, Any]:
        """Return the figures of this process: state, position, counts since it started, last error."""
        return {
            "state": str(self.state),
            **self._figures,
            "last_error": self._last_error,
            "consecutive_failures": self._failures,
            "last_progress": self._last_progress,
            "started": self._started,
        }

    def _once(self) -> None:
        if self._stopping.is_set():
            return
        source, sink = self._opened.open_source(), self._opened.open_sink()
        with self._tidying.finally_do(lambda: self._close(source, sink)):
            if not self._detached:
                self._replicate(source, sink)
            if self._then_tear_down and not self._stopping.is_set():
                self._dismantle(source, sink)

    def _close(self, source: Source, sink: Sink) -> None:
        self._sink = self._source = None
        with contextlib.ExitStack() as both:
            both.callback(source.close)
            both.callback(sink.close)

    def _replicate(self, source: Source, sink: Sink) -> None:
        if self._examined is None:
            self._examined = preflight.examine(source, sink)
        checkpoint = self._open(sink)
        self._source, self._sink = source, sink
        if self._until_current and self._until is None:
            self._until = source.current()
        checkpoint = self._copy(source, sink, checkpoint)
        if not self._stopping.is_set():
            self._stream(source, sink, checkpoint)

    def _dismantle(self, source: Source, sink: Sink) -> None:
        """Remove everything but the copied tables; when it is cut short, the next start can complete the copy."""
        if not self._detached:
            sink.detach()
            self._detached = True
        reached("engine.before_tear_down")
        for message in source.tear_down():
            self._events.note(message)
        reached("engine.before_forget")
        for message in sink.forget():
            self._events.note(message)

    def _open(self, sink: Sink) -> Checkpoint:
        """Open the sink; a process that was replaced while it was away does not take the row back.

        An opening that fails may have raised the epoch: the row then is ours by name, whatever its number.
        """
        if self._epoch is None:
            self._epoch = int(sink.status().get("epoch", 0))
            checkpoint = sink.open(self._owner)
        else:
            checkpoint = sink.open(self._owner, self._epoch)
        self._epoch = checkpoint.epoch
        return checkpoint

    def _copy(self, source: Source, sink: Sink, checkpoint: Checkpoint) -> Checkpoint:
        backfill = Backfill(
            source,
            sink,
            self._opened.pipeline,
            self._events,
            examined=self._examined or (),
            on_start=self._copying,
            on_progress=self._progressed,
            tidying=self._tidying,
        )
        with self._stoppable(backfill), copying():
            return backfill.run(checkpoint)

    def _stream(self, source: Source, sink: Sink, checkpoint: Checkpoint) -> None:
        self._figures["position"] = checkpoint.position
        self._set_state(State.STREAMING)
        replication = Replication(
            source,
            sink,
            self._opened.pipeline,
            checkpoint,
            on_applied=self._on_applied,
            until=self._until,
            tidying=self._tidying,
        )
        with self._stoppable(replication):
            replication.run()

    @contextlib.contextmanager
    def _stoppable(self, running: Backfill | Replication) -> Any:
        with self._lock:
            self._running = running
        if self._stopping.is_set():
            running.stop()
        try:
            yield
        finally:
            with self._lock:
                self._running = None

    def _on_applied(self, applied: Applied) -> None:
        batch = applied.batch
        self._progressed()
        self._figures["rows"] += batch.rows
        self._figures["transactions"] += batch.transactions
        if batch.position is not None:
            self._figures["position"] = batch.position
        if batch.commit_time is not None:
            self._figures["commit_time"] = batch.commit_time
        self._set_state(State.DEDUPLICATING if batch.skipped else State.STREAMING)
        self._events.applied(batch.rows, batch.transactions, batch.position, batch.commit_time, applied.seconds)

    def _copying(self) -> None:
        self._set_state(State.SNAPSHOTTING)

    def _progressed(self) -> None:
        """Note that something became durable: earlier failures no longer count as consecutive."""
        self._failures = 0
        self._last_progress = time.time()

    def _pause(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    def _failed(self, state: tenacity.RetryCallState) -> None:
        self._failures += 1
        error = state.outcome.exception() if state.outcome else None
        self._last_error = _describe(error)

    def _is_part_of_stopping(self, error: BaseException) -> bool:
        return isinstance(error, TransientError) and self._stopping.is_set()

    def _note_end(self, error: BaseException) -> None:
        self._last_error = _describe(error)
        self._set_state(State.FAILED)

    def _announce_retry(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._set_state(State.RETRYING)
        if isinstance(error, CdcrepError):
            self._events.retry(error, self._failures, state.upcoming_sleep)

    def _set_state(self, state: State) -> None:
        if state is not self.state or state is State.STARTING:
            self.state = state
            self._events.state(str(state))


def _numbered(state: tenacity.RetryCallState, attempt: int) -> tenacity.RetryCallState:
    state.attempt_number = attempt
    return state


def _describe(error: BaseException | None) -> str:
    if isinstance(error, CdcrepError):
        return error.message if error.hint is None else f"{error.message} ({error.hint})"
    return type(error).__name__


def _quietly(action: Any) -> None:
    with contextlib.suppress(Exception):
        action()
