"""The bounded hand-over between the reading and the applying thread, which merges what waits.

While a commit is slow, arriving transactions pile up and become one larger batch; when nothing is going on, a batch is
one transaction. That is all the batching there is: load makes large commits, idleness makes quick ones.

Transactions that are decoded together cost little more than one. So where few rows come at a time, the next ones stay
where they are, undecoded, while a commit is under way: nobody could take them before its end.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from cdcrep.changes import Batch, merge

FEW_ROWS: Final = 100
"""Up to so many rows in a batch, what follows it may wait undecoded."""

REST_SECONDS: Final = 0.02
"""For which it waits at most: what a source sends faster than this must be read beside a commit."""


class Handover:
    """A queue of batches, bounded in rows and bytes; thread-safe, one thread puts and one takes.

    At least one batch always fits, whatever its size.
    """

    def __init__(self, *, max_rows: int, max_bytes: int) -> None:
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._waiting: deque[Batch] = deque()
        self._rows = self._bytes = 0
        self._changed = threading.Condition()
        self._wanted = False
        self._closed = False
        self._finished = False
        self._failure: BaseException | None = None

    def put(self, batch: Batch) -> bool:
        """Add a batch, waiting for room; False: closed, nothing was added."""
        with self._changed:
            while self._waiting and not self._closed and not self._fits(batch):
                self._changed.wait()
            if self._closed:
                return False
            self._waiting.append(batch)
            self._wanted = False
            self._count(batch, 1)
            self._changed.notify_all()
            return True

    def rest(self, after: Batch) -> None:
        """Wait a moment for the taking thread to want more than this batch, if it has few rows."""
        if after.rows > FEW_ROWS:
            return
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._closed, REST_SECONDS)

    def take(self) -> Batch | None:
        """Remove and merge what waits, in order, waiting for something to come; None: closed or finished.

        Raises what `fail` was given once all that was put before has been taken.
        """
        with self._changed:
            while not self._waiting and not self._closed and not self._finished:
                self._wanted = True
                self._changed.notify_all()
                self._changed.wait()
            if self._closed:
                return None
            if not self._waiting:
                if self._failure is not None:
                    raise self._failure
                return None
            taken = self._mergeable()
            self._changed.notify_all()
        return merge(taken)

    def finish(self) -> None:
        """Tell the taking thread that nothing more will be put."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def fail(self, failure: BaseException) -> None:
        """Tell the taking thread that the putting thread has failed."""
        with self._changed:
            self._failure = failure
            self._finished = True
            self._changed.notify_all()

    def close(self) -> None:
        """Drop what waits and release both threads."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _fits(self, batch: Batch) -> bool:
        return self._rows + batch.rows <= self._max_rows and self._bytes + batch.size <= self._max_bytes

    def _count(self, batch: Batch, sign: int) -> None:
        self._rows += sign * batch.rows
        self._bytes += sign * batch.size

    def _mergeable(self) -> list[Batch]:
        """Pop the first batch and those that may share a target transaction with it.

        Pieces of a large transaction are not put behind finished ones, whose commit would have to wait for its end.
        """
        first = self._waiting.popleft()
        self._count(first, -1)
        taken, rows, size = [first], first.rows, first.size
        while self._waiting and (taken[-1].position is None or self._waiting[0].position is not None):
            following = self._waiting[0]
            if first.position is None and taken[-1].position is not None:
                break
            if rows + following.rows > self._max_rows or size + following.size > self._max_bytes:
                break
            self._waiting.popleft()
            self._count(following, -1)
            taken.append(following)
            rows, size = rows + following.rows, size + following.size
        return taken
