"""Holds the bytes of a dump that were received and not consumed, in one buffer that grows and shrinks."""

from __future__ import annotations

from typing import Final

import numpy as np

from cdcrep.columns import LIMIT, SLACK
from cdcrep.errors import DataError
from cdcrep_connectors.mysql.packets import HEADER, OK, Packets, cut, needed

USUAL_BYTES: Final = 4 << 20
"""Size of the buffer unless an event is larger. Only what is used of it occupies memory."""

LEAST_ROOM: Final = 256 << 10


class Window:
    """Received bytes: consumed events are forgotten, the others and the beginning of the next packet are kept."""

    def __init__(self) -> None:
        # The server counts from the command, which was packet 0.
        self._sequence = 1
        self._buffer = np.empty(USUAL_BYTES + SLACK, np.uint8)
        self._filled = 0
        self._cut = 0  # everything before was cut into events
        self._start = self._end = np.empty(0, np.int64)

    def __len__(self) -> int:
        """Count the events that are not consumed."""
        return len(self._start)

    @property
    def waiting(self) -> int:
        """Bytes that are not consumed."""
        return self._filled - self._used

    def packets(self, fresh: int = 0) -> Packets:
        """Return the events that are not consumed; valid until the next `room` or `consume`."""
        return Packets(self._buffer, self._start, self._end, fresh)

    def consume(self, count: int) -> None:
        """Forget the first events."""
        self._start, self._end = self._start[count:], self._end[count:]

    def room(self) -> memoryview:
        """Return where to put received bytes: at least what the packet that has begun still needs.

        Raises:
            DataError: that packet is larger than can be held.
        """
        missing = self._cut + needed(self._buffer, self._cut, self._filled) - self._filled
        self._make_room(max(LEAST_ROOM, missing))
        return memoryview(self._buffer.data)[self._filled : len(self._buffer) - SLACK]

    def received(self, count: int) -> None:
        """Take note of bytes that were put into `room`."""
        self._filled += count

    def cut(self) -> None:
        """Find the events in what was received; stops before a packet that is no event."""
        start, end, self._cut, self._sequence = cut(self._buffer, self._cut, self._filled, self._sequence)
        if len(start):
            self._start = np.concatenate([self._start, start])
            self._end = np.concatenate([self._end, end])

    def other_packet(self) -> bytes | None:
        """Take out the packet that `cut` stopped at, if it is complete and no event."""
        length = needed(self._buffer, self._cut, self._filled)
        end = self._cut + length
        if length < HEADER or end > self._filled or (length > HEADER and self._buffer[self._cut + HEADER] == OK):
            return None
        begin, self._cut = self._cut + HEADER, end
        return self._buffer[begin:end].tobytes()

    @property
    def _used(self) -> int:
        """Where the first byte is that must be kept."""
        return int(self._start[0]) if len(self._start) else self._cut

    def _make_room(self, missing: int) -> None:
        capacity = len(self._buffer) - SLACK
        used = self._used
        kept = self._filled - used
        oversized = capacity > 2 * USUAL_BYTES and kept + missing <= USUAL_BYTES
        if not oversized and self._filled + missing <= capacity:
            return
        if kept + missing + SLACK > LIMIT:
            raise DataError(f"the source sent an event of {missing} bytes, more than can be held beside what waits")
        target = self._buffer
        if oversized or kept + missing > capacity:
            target = np.empty(max(USUAL_BYTES, kept + missing + LEAST_ROOM) + SLACK, np.uint8)
        target[:kept] = self._buffer[used : self._filled]
        self._buffer = target
        self._start, self._end = self._start - used, self._end - used
        self._filled, self._cut = kept, self._cut - used
