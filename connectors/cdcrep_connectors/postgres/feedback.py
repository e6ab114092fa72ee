"""Tells the server what was received and what is durable, on a clock of its own.

PostgreSQL manual, "Streaming Replication Protocol", servers 14 to 18:

    Standby status update   Byte1('r') Int64 written lsn + 1  Int64 flushed  Int64 applied  Int64 time  Int8 reply now
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from typing import Final

from cdcrep.errors import CdcrepError
from cdcrep_connectors.postgres.pgoutput import UNIX_SECONDS_AT_2000

BETWEEN_CONFIRMATIONS: Final = 0.05
"""Seconds: the server writes its slot to disk for some of them."""

_status = struct.Struct(">cQQQqB").pack


def status_update(received: int, durable: int, *, reply: bool) -> bytes:
    """Write a standby status update; nothing is flushed or applied but what the target holds."""
    now = round((time.time() - UNIX_SECONDS_AT_2000) * 1e6)
    return _status(b"r", max(received, durable), durable, durable, now, reply)


class Feedback:
    """A thread that sends status updates until `stop`: every `interval` seconds, and soon after something changed.

    It goes on while the consumer of the stream is busy for minutes, or the server would end the connection after
    wal_sender_timeout.
    """

    def __init__(self, send: Callable[[bytes], None], interval: float, durable: int) -> None:
        self.received = durable
        """End of what was received; written by the reading thread."""
        self.failure: CdcrepError | None = None
        """Why the thread ended, if it could not send."""
        self._send = send
        self._interval = interval
        self._durable = durable
        self._changed = self._urgent = self._wants_reply = self._stopped = False
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="cdcrep-postgres-feedback", daemon=True)
        self._thread.start()

    def confirm(self, durable: int) -> None:
        """Report that everything up to an LSN is durable in the target; never goes back."""
        with self._condition:
            if durable <= self._durable:
                return
            self._durable = durable
            if not self._changed:
                self._changed = True
                self._condition.notify()

    def answer(self, *, wants_reply: bool = False) -> None:
        """Send an update at once, because the server asked for it or to make the server answer."""
        with self._condition:
            self._urgent = True
            self._wants_reply |= wants_reply
            self._condition.notify()

    def stop(self) -> None:
        """Send what is not sent yet and end the thread."""
        with self._condition:
            self._stopped = True
            self._condition.notify()
        self._thread.join(timeout=15)

    def _run(self) -> None:
        sent = 0.0
        try:
            while True:
                with self._condition:
                    while not self._stopped and (wait := self._due(sent) - time.monotonic()) > 0:
                        self._condition.wait(wait)
                    update = status_update(self.received, self._durable, reply=self._wants_reply)
                    last = self._stopped
                    self._changed = self._urgent = self._wants_reply = False
                self._send(update)
                sent = time.monotonic()
                if last:
                    return
        except CdcrepError as error:
            self.failure = error

    def _due(self, sent: float) -> float:
        if self._urgent:
            return 0.0
        return sent + (BETWEEN_CONFIRMATIONS if self._changed else self._interval)
