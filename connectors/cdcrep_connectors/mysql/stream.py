"""Streams committed changes from a server's binary log as batches."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from cdcrep.changes import Batch
from cdcrep.connector import Copied, Pipeline
from cdcrep.position import Position
from cdcrep.table import TableId
from cdcrep_connectors.mysql.batches import BatchAssembler, Bounds
from cdcrep_connectors.mysql.catalog import Catalog
from cdcrep_connectors.mysql.connection import Connection
from cdcrep_connectors.mysql.continuity import check_file, check_position, read_log
from cdcrep_connectors.mysql.dates import Tally
from cdcrep_connectors.mysql.framing import Framing
from cdcrep_connectors.mysql.log_files import begun_at
from cdcrep_connectors.mysql.options import SourceOptions
from cdcrep_connectors.mysql.position import Place, parse_position
from cdcrep_connectors.mysql.reading import BinlogReader
from cdcrep_connectors.mysql.replication import BinlogSocket, dump_is_working, random_server_id, start_dump
from cdcrep_connectors.relational.arrivals import BITE

log = structlog.get_logger(__name__)

HEARTBEAT_BYTES: Final = 16 << 20
"""Log that an idle stream may pass before it says so at once."""

LOOK_SECONDS: Final = 30.0
"""Time between two looks at what a running stream relies on and does not see in the log."""


@dataclass
class _Link:
    source: BinlogSocket
    reader: BinlogReader
    assembler: BatchAssembler


class BinlogStream:
    """Follows one server: `cdcrep.connector.Source` holds the contract of stream and stop."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        catalog: Callable[[], Catalog],
        look_again: Callable[[Place], None],
        *,
        options: SourceOptions,
        pipeline: Pipeline,
        tally: Tally,
    ) -> None:
        self._connect = connect
        self._catalog = catalog
        self._look_again = look_again
        self._dates, self._tally = options.impossible_dates, tally
        self._server_id = options.server_id or random_server_id()
        self._pipeline = pipeline
        self._stopping = threading.Event()
        self._wake_reader, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._link: _Link | None = None
        self._lock = threading.Lock()

    def check(self, after: Position) -> Place:
        """Raise what `stream` would raise where it cannot go on from `after`."""
        place = parse_position(after)
        with contextlib.closing(self._connect()) as connection:
            server_log = read_log(connection)
        found = check_position(place, server_log)
        if found.created and any(file == found.begin.file for file, _ in server_log.files):
            check_file(found, begun_at(self._connect(), found.begin.file, self._server_id))
        if found.server != place.server:
            log.warning("another server goes on", server=found.server, before=place.server)
        return found

    def stream(
        self, after: Position, copied: Mapping[TableId, Copied], until: Position | None = None
    ) -> Iterator[Batch]:
        """Yield what was committed after `after`."""
        self._hang_up()
        if self._stopping.is_set():
            return
        try:
            place = self.check(after)
            self._look_again(place)
            if nulled := self._tally.take_copied():
                # What the copy left out of the target is remembered there at once.
                place = replace(place, nulled=place.nulled + nulled)
                yield Batch(place.position())
            link = self._link = self._open(place, copied)
            yield from self._batches(link, place, None if until is None else parse_position(until))
        finally:
            self._hang_up()

    def stop(self) -> None:
        """Make the stream end soon, now or when it starts."""
        self._stopping.set()
        with contextlib.suppress(OSError):  # closed, or so full that the reader cannot overlook it
            self._waker.send(b"\0")

    def close(self) -> None:
        """End the connection; idempotent. No stream can be started afterwards."""
        self.stop()
        self._hang_up()
        self._waker.close()
        self._wake_reader.close()

    def _hang_up(self) -> None:
        with self._lock:
            link, self._link = self._link, None
        if link is not None:
            link.source.close()
            link.assembler.close()

    def _open(self, place: Place, copied: Mapping[TableId, Copied]) -> _Link:
        source = start_dump(self._connect(), place.begin.starting_point(), self._server_id)
        reader = BinlogReader(source, self._wake_reader, lambda: dump_is_working(self._connect, source.thread_id))
        bounds = Bounds(self._pipeline.max_batch_rows, self._pipeline.max_batch_bytes, BITE)
        assembler = BatchAssembler(
            lambda seen: self._catalog().table_of(seen),
            lambda id_: self._catalog().table(id_),
            Framing(checksums=source.checksums),
            place,
            copied,
            bounds,
            ways=lambda: self._catalog().ways(copied),
            dates=self._dates,
            tally=self._tally,
        )
        return _Link(source, reader, assembler)

    def _batches(self, link: _Link, place: Place, until: Place | None) -> Iterator[Batch]:
        assembler, patience = link.assembler, self._pipeline.heartbeat_seconds
        yielded, yielded_at = place, time.monotonic()
        # What the server has sent it may not count as committed yet: of each look the place is checked in the next.
        looked, look_at = place, yielded_at + LOOK_SECONDS
        while not self._stopping.is_set() and (until is None or not yielded.reached.contains(until.reached)):
            if time.monotonic() >= look_at:
                self._look_again(looked)
                looked, look_at = assembler.reached, time.monotonic() + LOOK_SECONDS
            due = max(0.0, yielded_at + patience - time.monotonic())
            waits = not assembler.in_pieces and assembler.reached != yielded
            packets = link.reader.read(due if waits else patience)
            for batch in assembler.take(packets):
                yield batch
                if batch.position is not None:
                    yielded, yielded_at = parse_position(batch.position), time.monotonic()
                if self._stopping.is_set():
                    return
            link.reader.window.consume(assembler.consumed)
            reached = assembler.reached
            if assembler.in_pieces or reached == yielded:
                continue
            at_once = until is not None and reached.reached.contains(until.reached)
            at_once |= _passed(yielded, reached) > HEARTBEAT_BYTES
            if at_once or time.monotonic() >= yielded_at + patience:
                yielded, yielded_at = reached, time.monotonic()
                yield Batch(reached.position())


def _passed(before: Place, after: Place) -> int:
    """Estimate the bytes of log between two places; a change of files counts as much."""
    if before.reached.file != after.reached.file:
        return HEARTBEAT_BYTES + 1
    return after.reached.offset - before.reached.offset
