"""Holds the bytes of a replication stream that were received and not consumed, in one buffer that grows and shrinks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from cdcrep.columns import LIMIT, SLACK
from cdcrep.errors import DataError
from cdcrep_connectors.postgres.frames import COPY_DATA, Frames, cut, message_end

USUAL_BYTES: Final = 8 << 20
"""Size of the buffer unless a message is larger. Only what is used of it occupies memory."""

LEAST_ROOM: Final = 256 << 10


class Window:
    """Received bytes: consumed payloads are forgotten, the others and the beginning of the next message are kept."""

    def __init__(self) -> None:
        self._buffer = np.empty(USUAL_BYTES + SLACK, np.uint8)
        self._filled = 0
        self._cut = 0  # everything before was cut into payloads
        self._start = self._end = np.empty(0, np.int64)

    def __len__(self) -> int:
        """Count the payloads that are not consumed."""
        return len(self._start)

    @property
    def waiting(self) -> int:
        """Bytes that are not consumed."""
        return self._filled - self._used

    def frames(self, fresh: int = 0) -> Frames:
        """Return the payloads that are not consumed; valid until the next `room`, `append` or `consume`."""
        return Frames(self._buffer, self._start, self._end, fresh)

    def consume(self, count: int) -> None:
        """Forget the first payloads."""
        self._start, self._end = self._start[count:], self._end[count:]

    def room(self) -> memoryview:
        """Return where to put received bytes: at least what the message that has begun still needs.

        Raises:
            DataError: that message has a length that the protocol does not allow.
        """
        needed = LEAST_ROOM
        end = message_end(self._buffer, self._cut, self._filled)
        if end is not None:
            needed = max(needed, end - self._filled)
        self._make_room(needed)
        return memoryview(self._buffer.data)[self._filled : len(self._buffer) - SLACK]

    def received(self, count: int) -> None:
        """Take note of bytes that were put into `room`."""
        self._filled += count

    def cut(self) -> None:
        """Find the payloads in what was received; stops before a message that is no CopyData."""
        start, end, self._cut = cut(self._buffer, self._cut, self._filled)
        if len(start):
            self._start = np.concatenate([self._start, start])
            self._end = np.concatenate([self._end, end])

    def other_message(self) -> tuple[int, bytes] | None:
        """Take out the message that `cut` stopped at, if it is complete: its type byte and its content."""
        end = message_end(self._buffer, self._cut, self._filled)
        if end is None or end > self._filled or self._buffer[self._cut] == COPY_DATA:
            return None
        begin, self._cut = self._cut, end
        return int(self._buffer[begin]), self._buffer[begin + 5 : end].tobytes()

    def append(self, payloads: Sequence[bytes | memoryview]) -> None:
        """Add payloads that came without the frame around them."""
        content = np.frombuffer(b"".join(payloads), np.uint8)
        self._make_room(len(content))
        ends = self._filled + np.cumsum(np.fromiter(map(len, payloads), np.int64, len(payloads)))
        self._buffer[self._filled : self._filled + len(content)] = content
        self._start = np.concatenate([self._start, [self._filled], ends[:-1]])
        self._end = np.concatenate([self._end, ends])
        self._filled = self._cut = self._filled + len(content)

    @property
    def _used(self) -> int:
        """Where the first byte is that must be kept."""
        return int(self._start[0]) if len(self._start) else self._cut

    def _make_room(self, needed: int) -> None:
        capacity = len(self._buffer) - SLACK
        used = self._used
        kept = self._filled - used
        oversized = capacity > 2 * USUAL_BYTES and kept + needed <= USUAL_BYTES
        if not oversized and self._filled + needed <= capacity:
            return
        if kept + needed + SLACK > LIMIT:
            raise DataError(f"the source sent a message of {needed} bytes, more than can be held beside what waits")
        target = self._buffer
        if oversized or kept + needed > capacity:
            target = np.empty(max(USUAL_BYTES, kept + needed + LEAST_ROOM) + SLACK, np.uint8)
        target[:kept] = self._buffer[used : self._filled]
        self._buffer = target
        self._start, self._end = self._start - used, self._end - used
        self._filled, self._cut = kept, self._cut - used
