"""Tidying up after a failure, and for how long: what hangs there must not keep a process alive that has failed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

TIDYING_SECONDS: Final = 60.0
"""For which a failed pipeline may roll back, join its threads and close its connections."""


class Tidying:
    """Knows which failures are being tidied up after, and since when. Thread-safe.

    It ends nothing itself: whoever waits for the pipeline asks, and ends the process. That is safe at any moment, as
    a crash is.
    """

    def __init__(self, limit_seconds: float = TIDYING_SECONDS) -> None:
        self.limit_seconds = limit_seconds
        self._lock = threading.Lock()
        self._under_way: dict[object, tuple[float, BaseException]] = {}

    @contextlib.contextmanager
    def finally_do(self, tidy_up: Callable[[], None]) -> Iterator[None]:
        """Call `tidy_up` after the block, whatever happens; if the block fails, the time it takes counts."""
        try:
            yield
        except BaseException as failure:
            with self._after(failure):
                tidy_up()
            raise
        tidy_up()

    def overdue(self, limit_seconds: float | None = None) -> BaseException | None:
        """Return the first failure after which tidying up takes longer than the limit."""
        before = time.monotonic() - (self.limit_seconds if limit_seconds is None else limit_seconds)
        with self._lock:
            # In the order of insertion, which is that of time.
            return next((failure for since, failure in self._under_way.values() if since <= before), None)

    @contextlib.contextmanager
    def _after(self, failure: BaseException) -> Iterator[None]:
        step = object()
        with self._lock:
            self._under_way[step] = (time.monotonic(), failure)
        try:
            yield
        finally:
            with self._lock:
                del self._under_way[step]
