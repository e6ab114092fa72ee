"""Decides when to take from a socket what a server streams: at once while little comes, in gulps while much comes.

A server that sends each row's message for itself pays for every one that travels at once: on a loopback interface that
is most of a walsender's time. While nobody reads, the messages join in its socket's queue, which costs almost nothing,
and travel together as soon as there is room. So while much arrives the socket is left alone for `REST_SECONDS`, and
then emptied. See `docs/decisions/0006-rest-between-reads.md`.
"""

from __future__ import annotations

import math
import select
import socket
import time
from collections.abc import Callable
from typing import Final

REST_SECONDS: Final = 0.02

BUSY_BYTES: Final = 64 << 10
"""As much within a rest means that much arrives: 3 MB/s. Until then every byte is taken at once."""

BITE: Final = 4 << 20
"""Bytes after which a caller should decode before it takes more."""


class Arrivals:
    """Takes bytes from `stream`; `wake` is a socket whose readability ends every wait.

    Args:
        receive: moves what has arrived away without waiting, about `BITE` at most, and returns how many bytes.
        is_over: tells that nothing more will come.
    """

    def __init__(
        self, stream: socket.socket, wake: socket.socket, receive: Callable[[], int], is_over: Callable[[], bool]
    ) -> None:
        self._receive = receive
        self._is_over = is_over
        # A Unix socket takes few messages, however small: a server that is left alone would soon stand still.
        self._can_rest = stream.family in (socket.AF_INET, socket.AF_INET6)
        self._woken = select.poll()
        self._woken.register(wake, select.POLLIN)
        self._ready = select.poll()
        self._ready.register(stream, select.POLLIN)
        self._ready.register(wake, select.POLLIN)
        self._is_busy = False
        self._since = time.monotonic()
        self._arrived = 0

    def gather(self) -> int:
        """Take what is there; while much arrives, let a rest's worth come first. Return the number of bytes."""
        total = 0
        if self._is_busy:
            while total < BITE and not self._is_over() and (left := self._since + REST_SECONDS - time.monotonic()) > 0:
                if self._can_rest:
                    _poll(self._woken, left)
                    break
                _poll(self._ready, left)
                if not (count := self._receive()):
                    break
                total += count
        return self._note(total + self._receive())

    def wait(self, seconds: float) -> int:
        """Wait for the first bytes, a wake-up or the end of a time, and take what is there."""
        _poll(self._ready, seconds)
        return self._note(self._receive())

    def _note(self, count: int) -> int:
        self._arrived += count
        now = time.monotonic()
        much = self._arrived >= BUSY_BYTES
        if much or now - self._since >= REST_SECONDS:
            self._is_busy, self._since, self._arrived = much, now, 0
        return count


def _poll(poll: select.poll, seconds: float) -> None:
    # Rounded up: a timeout of 0 would turn the last millisecond of a wait into a busy loop.
    poll.poll(math.ceil(seconds * 1000))
