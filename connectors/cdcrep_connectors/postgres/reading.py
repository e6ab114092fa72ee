"""Reads the payloads of a replication stream, and never waits for ever for a dead server."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final

from cdcrep.errors import TransientError
from cdcrep_connectors.postgres.feedback import Feedback
from cdcrep_connectors.postgres.frames import Frames
from cdcrep_connectors.postgres.replication import FrameSource
from cdcrep_connectors.postgres.window import Window
from cdcrep_connectors.relational.arrivals import Arrivals

PROBE_AFTER_SECONDS: Final = 8.0
"""Silence after which the server is asked for a reply, and again the time that it has to answer."""


class FrameReader:
    """Reads payloads from a connection; `wake` is a socket whose readability ends a wait."""

    def __init__(
        self, source: FrameSource, wake: socket.socket, feedback: Feedback, server_is_busy: Callable[[], bool]
    ) -> None:
        self.window = Window()
        self._source = source
        self._feedback = feedback
        self._server_is_busy = server_is_busy
        self._silent_since: float | None = None
        self._probed = False
        self._arrivals = Arrivals(
            source.socket, wake, lambda: source.receive(self.window), lambda: source.ended is not None
        )

    def read(self, timeout: float) -> Frames:
        """Wait up to `timeout` seconds for new payloads; return all that are not consumed, none new after a wake-up.

        Raises:
            TransientError, SetupError: the server ended the stream or is dead; what had come before was returned.
            DataError: what came is not the protocol.
        """
        known = len(self.window)
        count = self._arrivals.gather()
        if not count and self._source.ended is None:
            count = self._arrivals.wait(self._patience(time.monotonic(), timeout))
        if count:
            self._silent_since, self._probed = None, False
        if len(self.window) == known and self._source.ended is not None:
            raise self._source.ended
        return self.window.frames(known)

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
