"""Reads the events of a binlog stream, and never waits for ever for a dead server."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final

from cdcrep.errors import TransientError
from cdcrep_connectors.mysql.packets import Packets
from cdcrep_connectors.mysql.replication import BinlogSocket
from cdcrep_connectors.mysql.window import Window
from cdcrep_connectors.relational.arrivals import Arrivals

SILENT_SECONDS: Final = 15.0
"""Silence, three heartbeats long, after which another session is asked whether the server is at work."""


class BinlogReader:
    """Reads events from a connection; `wake` is a socket whose readability ends a wait.

    `server_is_busy` tells from another session whether the server works on this stream (`dump_is_working`).
    """

    def __init__(self, source: BinlogSocket, wake: socket.socket, server_is_busy: Callable[[], bool]) -> None:
        self.window = Window()
        self._source = source
        self._server_is_busy = server_is_busy
        self._silent_since: float | None = None
        self._arrivals = Arrivals(source.socket, wake, lambda: source.receive(self.window), lambda: self._is_over)

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
        count = self._arrivals.gather()
        if not count and not self._is_over:
            count = self._arrivals.wait(self._patience(time.monotonic(), timeout))
        if count:
            self._silent_since = None
        if len(self.window) == known and self._source.ended is not None:
            raise self._source.ended
        return self.window.packets(known)

    @property
    def _is_over(self) -> bool:
        return self._source.ended is not None or self._source.at_end

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
