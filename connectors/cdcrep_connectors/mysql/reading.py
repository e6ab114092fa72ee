"""Decides when to read: at once when idle, in big bites when busy, and never for ever from a dead server.

A reader that wakes up for every event makes the sending server slow. So while much arrives, the kernel wakes us only
when `LOW_WATER` bytes are there or `PAUSE_SECONDS` have passed.
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
from cdcrep_connectors.mysql.packets import Packets
from cdcrep_connectors.mysql.replication import BITE, BinlogSocket
from cdcrep_connectors.mysql.window import Window

LOW_WATER: Final = 64 << 10
PAUSE_SECONDS: Final = 0.002
BITE_SECONDS: Final = 0.02

HURRIED: Final = 3
"""Wake-ups in a row for little data, each less than a millisecond after the wait began, that mean: busy."""

CALM_BYTES: Final = 4 << 10
"""A pause that brings less ends the busy state."""

SILENT_SECONDS: Final = 15.0
"""Silence, three heartbeats long, after which another session is asked whether the server is at work."""


class BinlogReader:
    """Reads events from a connection; `wake` is a socket whose readability ends a wait.

    `server_is_busy` tells from another session whether the server works on this stream (`dump_is_working`).
    """

    def __init__(self, source: BinlogSocket, wake: socket.socket, server_is_busy: Callable[[], bool]) -> None:
        self.window = Window()
        self._source = source
        self._wake = wake
        self._server_is_busy = server_is_busy
        self._low_water = 1
        self._hurried = 0
        self._silent_since: float | None = None
        # The kernel ignores the low-water mark of Unix sockets when it decides whom to wake.
        self._has_low_water = source.socket.family in (socket.AF_INET, socket.AF_INET6)
        self._poll = select.poll()
        self._poll.register(source.socket, select.POLLIN)
        self._poll.register(wake, select.POLLIN)

    @property
    def at_end(self) -> bool:
        """Tell whether the log has ended, as was asked for, and all of it was returned."""
        return self._source.at_end

    def read(self, timeout: float) -> Packets:
        """Wait up to `timeout` seconds for new events; return all that are not consumed, none new after a wake-up.

        Raises:
            CdcrepError: the server ended the stream or is dead, or what came is not the protocol; what had come before
                was returned.
        """
        known = len(self.window)
        if self._receive(timeout) and self._is_busy:
            self._fill_bite()
        if len(self.window) == known and self._source.ended is not None:
            raise self._source.ended
        return self.window.packets(known)

    @property
    def _is_busy(self) -> bool:
        return self._hurried >= HURRIED

    @property
    def _is_over(self) -> bool:
        return self._source.ended is not None or self._source.at_end

    def _receive(self, timeout: float) -> int:
        """Take what is there, or wait for something."""
        count = self._source.receive(self.window)
        if not count and self._is_busy and not self._is_over:
            self._wait(PAUSE_SECONDS, LOW_WATER)
            count = self._source.receive(self.window)
            if count < CALM_BYTES:
                self._hurried = 0
        if not count and not self._is_over:
            began = time.monotonic()
            self._wait(self._patience(began, timeout), 1)
            count = self._source.receive(self.window)
            self._hurried = self._hurried + 1 if count and time.monotonic() - began < 0.001 else 0
        if count >= LOW_WATER:
            self._hurried = HURRIED
        if count:
            self._silent_since = None
        return count

    def _fill_bite(self) -> None:
        """Go on while the server goes on sending."""
        until = time.monotonic() + BITE_SECONDS
        while self.window.waiting < BITE and not self._is_over and time.monotonic() < until:
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
        """Shorten a wait to the moment at which a silent server must be looked at.

        The silence is only counted while we are listening. A server that searches its log for the starting point sends
        no heartbeats, so it is given up only if another session shows it idle, or cannot be opened.
        """
        if self._silent_since is None:
            self._silent_since = now
        silent = now - self._silent_since
        if silent >= SILENT_SECONDS:
            if not self._server_is_busy():
                raise TransientError(f"the server has not sent a heartbeat for {silent:.0f} s")
            self._silent_since, silent = time.monotonic(), 0.0
        return min(timeout, SILENT_SECONDS - silent)
