"""Streams committed changes from a replication slot as batches, and confirms what has become durable."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from cdcrep.changes import Batch
from cdcrep.connector import Copied, Pipeline
from cdcrep.errors import CdcrepError
from cdcrep.position import Position
from cdcrep.table import Table, TableId
from cdcrep_connectors.postgres.batches import BatchAssembler, Bounds
from cdcrep_connectors.postgres.continuity import System, check_position, check_slot, identify
from cdcrep_connectors.postgres.failures import translate
from cdcrep_connectors.postgres.feedback import Feedback
from cdcrep_connectors.postgres.lsn import Place, format_lsn, format_position, parse_position
from cdcrep_connectors.postgres.occupied_slot import wait_until_free
from cdcrep_connectors.postgres.reading import FrameReader
from cdcrep_connectors.postgres.relation import Relation
from cdcrep_connectors.postgres.replication import FrameSource, start_replication
from cdcrep_connectors.relational.arrivals import BITE

Connection = psycopg.Connection[Any]

STATUS_SECONDS: Final = 10.0
"""Longest time between two status updates; a third of the server's wal_sender_timeout if that is less."""

HEARTBEAT_BYTES: Final = 16 << 20
"""Log that an idle stream may pass before it says so at once, so that the server can remove it."""

ASK_SECONDS: Final = 0.1
"""With `until`: how often the server is asked how far it is."""

ANSWER_SECONDS: Final = 0.5
"""How long `passed` waits for the server to say how far it is."""


@dataclass
class _Link:
    """An open replication connection and what belongs to it."""

    connection: Connection
    source: FrameSource
    feedback: Feedback
    reader: FrameReader
    assembler: BatchAssembler
    after: int
    system: int
    timeline: int
    progress: tuple[int, int] = (0, 0)
    """Where the last transaction that was received ends; everything up to where was received."""


class ReplicationStream:
    """Follows one replication slot: `cdcrep.connector.Source` holds the contract of stream, confirm and stop.

    `connect` opens a session, for replication if its argument is true, with text forms pinned; `shape` makes the table
    of a relation when the relation's first change arrives.
    """

    def __init__(
        self,
        connect: Callable[[bool], Connection],
        shape: Callable[[Relation], Table],
        *,
        slot: str,
        publications: Sequence[str],
        pipeline: Pipeline,
    ) -> None:
        self._connect = connect
        self._shape = shape
        self._slot = slot
        self._publications = tuple(publications)
        self._pipeline = pipeline
        self._stopping = threading.Event()
        self._wake_reader, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._link: _Link | None = None
        self._until: int | None = None
        self._lock = threading.Lock()

    @property
    def skipped_transactions(self) -> int:
        """Transactions that the server repeated since the stream started and that were left out."""
        link = self._link
        return link.assembler.skipped_transactions if link else 0

    @property
    def deduplicating(self) -> bool:
        """Tell whether the server still repeats transactions that the target holds."""
        link = self._link
        return link is not None and link.assembler.deduplicating

    @property
    def truncations(self) -> Mapping[TableId, Collection[int]]:
        """Transactions, by their 32-bit numbers, whose TRUNCATE of a table was received."""
        link = self._link
        return link.assembler.truncations if link else {}

    @property
    def described(self) -> int:
        """How many times the server has described a table: before its first row, and after a change around it."""
        link = self._link
        return link.assembler.described if link else 0

    def forget_truncations(self) -> None:
        """Forget those received so far."""
        link = self._link
        if link is not None:
            link.assembler.truncations.clear()

    def go_on_until(self, lsn: int) -> None:
        """End later than asked for, if at all; for the thread that reads."""
        if self._until is not None:
            self._until = max(self._until, lsn)

    def passed(self, durable: int, newest: int) -> int:
        """Return up to where the log holds nothing that the target lacks, if it holds everything up to `durable`.

        Asks the server and waits a moment for it to reach `newest`. Thread-safe.
        """
        link, deadline = self._link, time.monotonic() + ANSWER_SECONDS
        while link is not None and not self._stopping.is_set():
            received, reached = link.progress
            if received > durable:
                break
            if reached >= newest or time.monotonic() > deadline:
                return max(durable, reached)
            link.feedback.answer(wants_reply=True)
            time.sleep(ANSWER_SECONDS / 25)
        return durable

    def check(self, after: Position) -> None:
        """Raise what `stream` would raise where it cannot go on from `after`."""
        connection = self._connect(True)
        try:
            self._check(connection, after)
        except psycopg.Error as error:
            raise translate(error, "looking at the source's log") from error
        finally:
            connection.close()

    def stream(
        self, after: Position, copied: Mapping[TableId, Copied], until: Position | None = None
    ) -> Iterator[Batch]:
        """Yield what was committed after `after`; at the end the connection stays, for confirmations, until `close`."""
        self._hang_up()
        if self._stopping.is_set():
            return
        try:
            link = self._link = self._open(after, copied)
            self._until = None if until is None else parse_position(until).lsn
            yield from self._batches(link)
        except psycopg.Error as error:
            self._hang_up()
            raise translate(error, "streaming from the source") from error
        except Exception:
            self._hang_up()
            raise

    def confirm(self, durable: Position) -> None:
        """Allow the server to forget what is at or before `durable`."""
        link = self._link
        if link is not None:
            link.feedback.confirm(parse_position(durable).lsn)

    def stop(self) -> None:
        """Make the stream end soon, now or when it starts."""
        self._stopping.set()
        with contextlib.suppress(OSError):  # closed, or so full that the reader cannot overlook it
            self._waker.send(b"\0")

    def close(self) -> None:
        """Send the last confirmation and end the connection; idempotent. No stream can be started afterwards."""
        self.stop()
        with self._lock:
            link, self._link = self._link, None
        if link is not None:
            try:
                link.feedback.stop()
                link.source.finish()
            except CdcrepError:
                pass  # the server is gone: it will repeat what it did not hear about
            finally:
                _disconnect(link)
        self._waker.close()
        self._wake_reader.close()

    def _hang_up(self) -> None:
        """End a connection that has failed, or of which nobody takes notice any more."""
        with self._lock:
            link, self._link = self._link, None
        if link is not None:
            link.feedback.stop()
            _disconnect(link)

    def _open(self, after: Position, copied: Mapping[TableId, Copied]) -> _Link:
        """Connect, make sure that the stream can go on from `after`, and start it."""
        connection = self._connect(True)
        try:
            system, place = self._check(connection, after)
            wait_until_free(
                connection,
                self._slot,
                lambda: check_slot(connection, self._slot, place, system.database),
                self._pipeline.heartbeat_seconds,
                self._stopping.wait,
            )
            interval = _status_interval(connection)
            pid = connection.info.backend_pid
            source = start_replication(connection, self._command(place))
        except BaseException:
            connection.close()
            raise
        feedback = Feedback(source.send, interval, place.lsn)
        reader = FrameReader(source, self._wake_reader, feedback, lambda: self._is_working(pid))
        bounds = Bounds(self._pipeline.max_batch_rows, self._pipeline.max_batch_bytes, BITE)

        def write_position(lsn: int) -> Position:
            return format_position(system.identifier, system.timeline, lsn)

        assembler = BatchAssembler(self._shape, place.lsn, copied, bounds, write_position)
        return _Link(connection, source, feedback, reader, assembler, place.lsn, system.identifier, system.timeline)

    def _check(self, connection: Connection, after: Position) -> tuple[System, Place]:
        """Make sure that the server behind a replication connection still has everything after a position."""
        system = identify(connection)
        place = check_position(after, system, connection)
        check_slot(connection, self._slot, place, system.database)
        return system, place

    def _batches(self, link: _Link) -> Iterator[Batch]:
        assembler, feedback = link.assembler, link.feedback
        yielded, yielded_at, asked_at = link.after, time.monotonic(), 0.0
        while not self._stopping.is_set() and (self._until is None or yielded < self._until):
            now = time.monotonic()
            if self._until is not None and now >= asked_at + ASK_SECONDS:
                feedback.answer(wants_reply=True)
                asked_at = now
            patience = max(0.0, yielded_at + self._pipeline.heartbeat_seconds - now)
            patience = patience if _has_advanced(assembler, yielded) else self._pipeline.heartbeat_seconds
            frames = link.reader.read(patience if self._until is None else min(patience, ASK_SECONDS))
            batches, count = assembler.take(frames)
            link.reader.window.consume(count)
            feedback.received = assembler.received
            link.progress = _progress(link.progress[0], batches), assembler.reached
            if assembler.reply_requested:
                feedback.answer()
            if feedback.failure is not None and link.source.ended is None:
                raise feedback.failure
            for batch in batches:
                yield batch
                if batch.position is not None:
                    yielded, yielded_at = parse_position(batch.position).lsn, time.monotonic()
                if self._stopping.is_set():
                    return
            if self._heartbeat_is_due(assembler, yielded, yielded_at):
                yielded, yielded_at = assembler.reached, time.monotonic()
                yield Batch(format_position(link.system, link.timeline, yielded))

    def _heartbeat_is_due(self, assembler: BatchAssembler, yielded: int, yielded_at: float) -> bool:
        if not _has_advanced(assembler, yielded):
            return False
        # A server that shuts down asks for a reply, and waits until we confirm the end of its log.
        at_once = assembler.reply_requested or assembler.reached - yielded > HEARTBEAT_BYTES
        at_once |= self._until is not None and assembler.reached >= self._until
        return at_once or time.monotonic() >= yielded_at + self._pipeline.heartbeat_seconds

    def _command(self, place: Place) -> bytes:
        names = ",".join('"' + name.replace('"', '""') + '"' for name in self._publications)
        options = f"proto_version '1', publication_names '{names.replace(chr(39), chr(39) * 2)}'"
        return f'START_REPLICATION SLOT "{self._slot}" LOGICAL {format_lsn(place.lsn)} ({options})'.encode()

    def _is_working(self, pid: int) -> bool:
        """Tell from another session whether the walsender is at work, so that its silence means nothing."""
        try:
            with self._connect(False) as connection:
                row = connection.execute(
                    "SELECT wait_event_type FROM pg_catalog.pg_stat_activity WHERE pid = %s", [pid]
                ).fetchone()
        except (psycopg.Error, CdcrepError):
            return False
        # Activity: it waits for log to be written. Client: it waits for us. In both cases it would have answered.
        return row is not None and row[0] not in ("Activity", "Client")


def _has_advanced(assembler: BatchAssembler, yielded: int) -> bool:
    """Tell whether there is a new position; between the pieces of a transaction one would commit its first half."""
    return assembler.reached > yielded and not assembler.in_pieces


def _progress(received: int, batches: Sequence[Batch]) -> int:
    last = next((batch.position for batch in reversed(batches) if batch.position is not None), None)
    return received if last is None else parse_position(last).lsn


def _status_interval(connection: Connection) -> float:
    """Return the seconds between status updates that keep this session alive."""
    row = connection.execute(
        "SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'"
    ).fetchone()
    assert row is not None
    timeout = int(row[0])  # milliseconds; 0: never
    return min(STATUS_SECONDS, timeout / 3000) if timeout else STATUS_SECONDS


def _disconnect(link: _Link) -> None:
    link.source.socket.close()
    link.connection.close()
