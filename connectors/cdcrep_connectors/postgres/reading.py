"""Decides when to read: at once when idle, in big bites when busy, and never for ever from a dead server.

A reader that wakes up for every message makes the walsender slow: it halves the rate. So while much arrives, the kernel
wakes us only when `LOW_WATER` bytes are there or `PAUSE_SECONDS` have passed.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import time
from collections.abc import Callable
from typing import Final

from cdcrep.errors import TransientError
from cdcrep_connectors.postgres.feedback import Feedback
from cdcrep_connectors.postgres.frames import Frames
from cdcrep_connectors.postgres.replication import BITE, FrameSource
from cdcrep_connectors.postgres.window import Window

LOW_WATER: Final = 64 << 10
PAUSE_SECONDS: Final = 0.002
BITE_SECONDS: Final = 0.02

HURRIED: Final = 3
"""Wake-ups in a row for little data, each less than a millisecond after the wait began, that mean: busy."""

CALM_BYTES: Final = 4 << 10
"""A pause that brings less ends the busy state."""

PROBE_AFTER_SECONDS: Final = 8.0
"""Silence after which the server is asked for a reply, and again the time that it has to answer."""


class FrameReader:
    """Reads payloads from a connection; `wake` is a socket whose readability ends a wait."""

    def __init__(
        self, source: FrameSource, wake: socket.socket, feedback: Feedback, server_is_busy: Callable[[], bool]
    ) -> None:
        self.window = Window()
        self._source = source
        self._wake = wake
        self._feedback = feedback
        self._server_is_busy = server_is_busy
        self._low_water = 1
        self._hurried = 0
        self._silent_since: float | None = None
        self._probed = False
        # The kernel ignores the low-water mark of Unix sockets when it decides whom to wake.
        self._has_low_water = source.socket.family in (socket.AF_INET, socket.AF_INET6)
        self._poll = select.poll()
        self._poll.register(source.socket, select.POLLIN)
        self._poll.register(wake, select.POLLIN)

    def read(self, timeout: float) -> Frames:
        """Wait up to `timeout` seconds for new payloads; return all that are not consumed, none new after a wake-up.

        Raises:
            TransientError, SetupError: the server ended the stream or is dead; what had come before was returned.
            DataError: what came is not the protocol.
        """
        known = len(self.window)
        if self._receive(timeout) and self._is_busy:
            self._fill_bite()
        if len(self.window) == known and self._source.ended is not None:
            raise self._source.ended
        return self.window.frames(known)

    @property
    def _is_busy(self) -> bool:
        return self._hurried >= HURRIED

    def _receive(self, timeout: float) -> int:
        """Take what is there, or wait for something."""
        count = self._source.receive(self.window)
        if not count and self._is_busy and self._source.ended is None:
            self._wait(PAUSE_SECONDS, LOW_WATER)
            count = self._source.receive(self.window)
            if count < CALM_BYTES:
                self._hurried = 0
        if not count and self._source.ended is None:
            began = time.monotonic()
            self._wait(self._patience(began, timeout), 1)
            count = self._source.receive(self.window)
            self._hurried = self._hurried + 1 if count and time.monotonic() - began < 0.001 else 0
        if count >= LOW_WATER:
            self._hurried = HURRIED
        if count:
            self._silent_since, self._probed = None, False
        return count

    def _fill_bite(self) -> None:
        """Go on while the server goes on sending."""
        until = time.monotonic() + BITE_SECONDS
        while self.window.waiting < BITE and self._source.ended is None and time.monotonic() < until:
            self._wait(PAUSE_SECONDS, LOW_WATER)
            if self._source.receive(self.window) < CALM_BYTES:
                return

    def _wait(self, seconds: float, low_water: int) -> None:
        """Wait until so many bytes can be read, for a wake-up, or until the time is over."""
        if low_water != self._low_water and self._has_low_water:
            with contextlib.suppress(OSError):  # not on this platform: then every wait is an eager one
                self._source.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low_water)
            self._low_water = low_water
        # Rounded up: a timeout of 0 would turn the last millisecond of a wait into a busy loop.
        self._poll.poll(math.ceil(seconds * 1000))

    def _patience(self, now: float, timeout: float) -> float:
        """Shorten a wait to the moment at which a silent server must be probed, or given up.

        The silence is only counted while we are listening. A server that is busy with decoding answers late, so it is
        given up only if another connection shows its process idle, or cannot be made.
        """
        if self._silent_since is None:
            self._silent_since = now
        silent = now - self._silent_since
        if silent >= PROBE_AFTER_SECONDS:
            if self._probed and not self._server_is_busy():
                raise TransientError(f"the server has not answered for {silent + PROBE_AFTER_SECONDS:.0f} s")
            self._feedback.answer(wants_reply=True)
            self._probed, self._silent_since, silent = True, now, 0.0
        return min(timeout, PROBE_AFTER_SECONDS - silent)
