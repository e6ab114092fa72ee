"""Makes batches of whole transactions out of replication payloads; leaves out what the target holds already. No I/O.

PostgreSQL manual, "Streaming Replication Protocol", servers 14 to 18:

    XLogData    Byte1('w') Int64 start lsn   Int64 end lsn   Int64 send time   Byten message
    Keepalive   Byte1('k') Int64 end lsn     Int64 send time Int8 reply at once
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cdcrep.changes import Batch, merge
from cdcrep.columns import Positions, integers
from cdcrep.connector import Copied
from cdcrep.errors import DataError
from cdcrep.position import Position
from cdcrep.table import Table, TableId
from cdcrep_connectors.postgres.frames import Frames
from cdcrep_connectors.postgres.lsn import format_lsn, parse_position
from cdcrep_connectors.postgres.pgoutput import BEGIN, ROW, Boundaries, Decoder, Lsns, Messages, boundaries, read_xid
from cdcrep_connectors.postgres.relation import Relation

XLOG_DATA, KEEPALIVE = ord("w"), ord("k")
XLOG_HEADER: Final = 25


@dataclass(frozen=True)
class Bounds:
    """How large a batch may become."""

    rows: int
    size: int
    """Bytes as received."""
    held: int
    """Bytes of an unfinished transaction from which its rows are decoded and no longer kept as received."""


@dataclass(frozen=True)
class _Transactions:
    """n finished transactions among messages."""

    first: Positions
    """(n,) index of the first message."""
    last: Positions
    """(n,) index of the Commit message."""
    final_lsn: Lsns
    end_lsn: Lsns
    commit_time: NDArray[np.float64]


class BatchAssembler:
    """Takes payloads in order and returns the batches that are complete.

    `after` is the end of the last transaction that the target holds; `write_position` makes a position of an LSN.
    """

    def __init__(
        self,
        shape: Callable[[Relation], Table],
        after: int,
        copied: Mapping[TableId, Copied],
        bounds: Bounds,
        write_position: Callable[[int], Position],
    ) -> None:
        self.received = after
        """End of what was received."""
        self.reached = after
        """Every transaction up to here was received whole and returned; later than the last batch when idle."""
        self.reply_requested = False
        """The server asked for a status update in the payloads taken last."""
        self.skipped_transactions = 0
        """Transactions left out because the target holds them."""
        self._decoder = Decoder(shape)
        self._after = after
        self._last_end = 0
        self._bounds = bounds
        self._write_position = write_position
        copies = {table: parse_position(copy.position).lsn for table, copy in copied.items()}
        self._settled = {table: lsn for table, lsn in copies.items() if lsn > after}
        self._open: int | None = None
        self._held: list[Batch] = []
        self._in_pieces = False

    @property
    def deduplicating(self) -> bool:
        """Tell whether the server still repeats transactions that the target holds."""
        return self.skipped_transactions > 0 and self._last_end <= self._after

    @property
    def truncations(self) -> dict[TableId, set[int]]:
        """The transactions, by their 32-bit numbers, that emptied a table, as far as returned."""
        return self._decoder.truncations

    @property
    def described(self) -> int:
        """How many times the server has described a table, as far as returned."""
        return self._decoder.described

    @property
    def in_pieces(self) -> bool:
        """Tell whether the last piece of a transaction is still to come: until then no other batch may follow."""
        return self._in_pieces

    def take(self, frames: Frames) -> tuple[list[Batch], int]:
        """Return the batches that the payloads complete, and how many payloads need not be kept.

        Raises:
            DataError: the payloads are not what the protocol says, or a row cannot be carried.
        """
        self.reply_requested = False
        if not len(frames):
            return [], 0
        keepalive = self._look(frames)
        data = np.flatnonzero(~keepalive)
        messages = Messages.classify(frames.buffer, frames.start[data] + XLOG_HEADER, frames.end[data])
        found = boundaries(messages, self._open)
        batches: list[Batch] = []
        done = 0  # messages
        if len(found.commit):
            done = int(found.commit[-1]) + 1
            batches = list(self._finished(messages.slice(0, done), self._transactions(found)))
            self._open = None
        if len(found.begin) and int(found.begin[-1]) >= done:
            rest = messages.slice(done, len(data))
            if int(rest.end[-1] - rest.start[0]) < self._bounds.held:
                return batches, int(data[done - 1]) + 1 if done else 0
            self._open = int(found.final_lsn[-1])
            self._decoder.open_xid = read_xid(messages, int(found.begin[-1]))
        rest = messages.slice(done, len(data))
        if self._open is not None:
            batches += self._unfinished(rest, self._open)
        else:
            self._decoder.learn(rest)
            idle = np.flatnonzero(keepalive)
            if len(idle):
                wal_end = int(integers(frames.buffer, ">u8")[frames.start[idle[-1]] + 1])
                self.reached = max(self.reached, wal_end)
        return batches, len(frames)

    def _look(self, frames: Frames) -> NDArray[np.bool_]:
        """Check the payloads' kinds and lengths, note what the new ones say; return which are keepalives."""
        length = frames.end - frames.start
        if (length < 18).any():
            raise DataError("the server sent a replication message that is too short")
        kinds = frames.buffer[frames.start]
        keepalive: NDArray[np.bool_] = kinds == KEEPALIVE
        if (~keepalive & (kinds != XLOG_DATA)).any() or (length[keepalive] != 18).any():
            raise DataError("the server sent a replication message of unknown kind")
        if frames.fresh < len(frames):
            wal_ends = integers(frames.buffer, ">u8")[frames.start[frames.fresh :] + 1]
            self.received = max(self.received, int(wal_ends.max()))
            asking = frames.start[frames.fresh :][keepalive[frames.fresh :]] + 17
            self.reply_requested = bool((frames.buffer[asking] != 0).any())
        return keepalive

    def _transactions(self, found: Boundaries) -> _Transactions:
        """Pair begins and commits, the first of which may belong to a transaction that began earlier."""
        count = len(found.commit)
        carried = self._open is not None
        first = np.concatenate([np.zeros(int(carried), np.int64), found.begin])[:count]
        final_lsn = np.concatenate([np.array([self._open] if carried else [], np.uint64), found.final_lsn])[:count]
        ends = np.concatenate([np.array([self._last_end], np.uint64), found.end_lsn])
        if (final_lsn < ends[:-1]).any() or (found.end_lsn <= final_lsn).any():
            raise DataError(f"the server sent transactions out of order after {format_lsn(self._last_end)}")
        self._last_end = int(ends[-1])
        self.reached = max(self.reached, self._last_end)
        return _Transactions(first, found.commit, final_lsn, found.end_lsn, found.commit_time)

    def _finished(self, messages: Messages, found: _Transactions) -> Iterator[Batch]:
        """Return the batches of finished transactions, as few as the bounds allow."""
        at = int((found.final_lsn < self._after).sum())
        if at:
            self._decoder.learn(messages.slice(0, int(found.last[at - 1]) + 1))
            self.skipped_transactions += at
        rows = np.concatenate([[0], np.cumsum(messages.classes == ROW)])
        rows_before, rows_after = rows[found.first], rows[found.last + 1]
        starts, ends = messages.start[found.first], messages.end[found.last]
        while at < len(found.last):
            fits = (rows_after - rows_before[at] <= self._bounds.rows) & (ends - starts[at] <= self._bounds.size)
            until = int(np.searchsorted(~fits, True))
            if until <= at or (at == 0 and self._open is not None):
                until = at + 1
                yield from self._pieces(messages, found, at)
            else:
                yield from self._whole(messages, found, at, until)
            at = until

    def _whole(self, messages: Messages, found: _Transactions, at: int, until: int) -> Iterator[Batch]:
        """Return one batch of several transactions; none where they changed nothing of ours."""
        part = messages.slice(int(found.first[at]), int(found.last[until - 1]) + 1)
        lsns = None
        if self._settled:
            lasts = found.last[at:until] - found.first[at]
            lsns = found.final_lsn[at:until][np.searchsorted(lasts, np.arange(len(part.start)))]
        batch = self._batch(part, lsns, int(found.final_lsn[at]))
        if batch.changes:
            yield self._positioned(replace(batch, transactions=until - at), found, until - 1)

    def _pieces(self, messages: Messages, found: _Transactions, at: int) -> Iterator[Batch]:
        """Return a transaction that is larger than the bounds, or of which a part was taken earlier."""
        part = messages.slice(int(found.first[at]), int(found.last[at]) + 1)
        if part.classes[0] == BEGIN:
            self._decoder.open_xid = read_xid(part, 0)
        yield from self._unfinished(part, int(found.final_lsn[at]))
        final = self._positioned(replace(merge(self._held), transactions=1), found, at)
        if final.changes or self._in_pieces:
            yield final
        self._held, self._in_pieces = [], False

    def _unfinished(self, messages: Messages, final_lsn: int) -> Iterator[Batch]:
        """Hold the rows of a part of a transaction; return a piece where more than a batch is held."""
        if final_lsn < self._after:
            self._decoder.learn(messages)
            return
        for part in _split(messages, self._bounds):
            lsns = np.full(len(part.start), final_lsn, np.uint64)
            batch = self._batch(part, lsns, final_lsn)
            rows = batch.rows + sum(held.rows for held in self._held)
            size = batch.size + sum(held.size for held in self._held)
            if self._held and (rows > self._bounds.rows or size > self._bounds.size):
                piece = merge(self._held)
                self._held = []
                if piece.changes:
                    self._in_pieces = True
                    yield piece
            self._held.append(batch)

    def _batch(self, messages: Messages, lsns: Lsns | None, first_final_lsn: int) -> Batch:
        settled = {table: lsn for table, lsn in self._settled.items() if lsn > first_final_lsn}
        changes = self._decoder.decode(replace(messages, final_lsn=lsns), settled)
        size = int(messages.end[-1] - messages.start[0])
        return Batch(None, changes, size=size)

    def _positioned(self, batch: Batch, found: _Transactions, last: int) -> Batch:
        position = self._write_position(int(found.end_lsn[last]))
        return replace(batch, position=position, commit_time=float(found.commit_time[last]))


def _split(messages: Messages, bounds: Bounds) -> Iterator[Messages]:
    """Cut messages so that each part is within the bounds, or is one message."""
    if not len(messages.start):
        return
    rows = np.cumsum(messages.classes == ROW) - 1
    size = messages.end - messages.start[0]
    bucket = np.maximum(rows, 0) // bounds.rows + size // bounds.size
    edges = [0, *(np.flatnonzero(np.diff(bucket)) + 1).tolist(), len(bucket)]
    for first, after in pairwise(edges):
        yield messages.slice(first, after)
