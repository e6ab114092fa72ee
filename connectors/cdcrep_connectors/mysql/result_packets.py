"""Holds the bytes of a server's answer to a query and cuts them into packets, all whole rows at once.

MySQL source documentation, "MySQL Packets", "Binary Protocol Resultset":

    length 3   sequence 1   payload

A payload of 2^24-1 bytes and more is split: packets of that length follow each other until one is shorter. The rows of
a prepared statement begin with a zero byte, which neither an error (0xff) nor the end (0xfe) does.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from cdcrep.columns import LIMIT, SLACK, Bytes, Positions
from cdcrep.errors import DataError, TransientError

HEADER: Final = 4
ROW: Final = 0
LONGEST: Final = (1 << 24) - 1
LARGEST: Final = LIMIT - (64 << 20)
"""Bytes of a packet that is received, with all its parts."""

USUAL_BYTES: Final = 4 << 20
"""Size of the buffer unless a row is larger. Only what is used of it occupies memory."""

LEAST_ROOM: Final = 256 << 10

_NONE: Final = np.empty(0, np.int64)

_word = struct.Struct("<I").unpack_from


class Answer:
    """What was received of one answer and not taken yet; what is taken is valid until the next `room`."""

    def __init__(self) -> None:
        # The server counts from the command, which was packet 0.
        self._sequence = 1
        self._buffer = np.empty(USUAL_BYTES + SLACK, np.uint8)
        self._begin = 0
        self._filled = 0

    @property
    def waiting(self) -> int:
        """Bytes that are not taken."""
        return self._filled - self._begin

    @property
    def free(self) -> int:
        """Bytes that fit in without moving anything."""
        return len(self._buffer) - SLACK - self._filled

    def room(self) -> memoryview:
        """Return where to put received bytes: at least what the packet that has begun still needs.

        Raises:
            DataError: that packet is larger than can be held.
        """
        missing = max(LEAST_ROOM, self._needed() - self.waiting)
        if self.free < missing or not self.waiting:
            self._make_room(missing)
        return memoryview(self._buffer.data)[self._filled : len(self._buffer) - SLACK]

    def received(self, count: int) -> None:
        """Take note of bytes that were put into `room`."""
        self._filled += count

    def packet(self) -> bytes | None:
        """Take the next packet, whatever it is; None if not all of it is there.

        Raises:
            TransientError: packets are missing.
            DataError: it is larger than can be held.
        """
        found = self._joined()
        return None if found is None else self._buffer[found[0] : found[1]].tobytes()

    def rows(self) -> tuple[Bytes, Positions, Positions]:
        """Take all rows up to the first packet that is none or not whole.

        Returns the buffer, with `columns.SLACK` bytes behind its content, and (n,) offsets, ascending, of the rows'
        payloads and their ends.

        Raises:
            TransientError: packets are missing.
            DataError: a row is larger than can be held.
        """
        starts: list[Positions] = []
        ends: list[Positions] = []
        while True:
            start, end = self._walk()
            if not len(start):
                if not self._is_row() or (found := self._joined()) is None:
                    break
                start, end = np.array(found[:1]), np.array(found[1:])
            starts.append(start)
            ends.append(end)
        if not starts:
            return self._buffer, _NONE, _NONE
        if len(starts) == 1:
            return self._buffer, starts[0], ends[0]
        return self._buffer, np.concatenate(starts), np.concatenate(ends)

    def _is_row(self) -> bool:
        at = self._begin + HEADER
        return at < self._filled and int(self._buffer[at]) == ROW

    def _walk(self) -> tuple[Positions, Positions]:
        """Take rows that were not split, going from packet to packet by their lengths."""
        begin, filled = self._begin, self._filled
        content = memoryview(self._buffer.data)
        headers: list[int] = []
        note, last = headers.append, filled - HEADER - 1
        while begin <= last:
            note(begin)
            begin += HEADER + (_word(content, begin)[0] & LONGEST)
        if not headers:
            return _NONE, _NONE
        start = np.array([*headers, begin], np.int64)
        start, end = start[:-1] + HEADER, start[1:]
        length = end - start
        whole = (self._buffer[start] == ROW) & (length > 0) & (length < LONGEST) & (end <= filled)
        count = len(start) if whole.all() else int(whole.argmin())
        if not count:
            return _NONE, _NONE
        start, end = start[:count], end[:count]
        self._check_sequence(self._buffer[start - 1])
        self._begin = int(end[-1])
        return start, end

    def _joined(self) -> tuple[int, int] | None:
        """Take the next packet, moving its parts together; None if not all of it is there."""
        parts: list[tuple[int, int]] = []
        at, length = self._begin, LONGEST
        while length == LONGEST:
            if at + HEADER > self._filled:
                return None
            length = int(_word(self._buffer.data, at)[0]) & LONGEST
            parts.append((at + HEADER, length))
            at += HEADER + length
            if at > self._filled:
                return None
        self._check_sequence(self._buffer[[start - 1 for start, _ in parts]])
        begin = end = parts[0][0]
        for start, length in parts:
            self._buffer[end : end + length] = self._buffer[start : start + length]
            end += length
        self._begin = at
        return begin, end

    def _needed(self) -> int:
        """Return how many bytes the next packet takes, as far as can be told."""
        at = self._begin
        while at + HEADER <= self._filled:
            length = int(_word(self._buffer.data, at)[0]) & LONGEST
            at += HEADER + length
            if length < LONGEST:
                break
        else:
            at += HEADER
        if at - self._begin > LARGEST:
            raise DataError("the source sent a row that is too large to be received")
        return at - self._begin

    def _check_sequence(self, numbers: Bytes) -> None:
        expected = (np.arange(len(numbers)) + self._sequence).astype(np.uint8)
        if not np.array_equal(numbers, expected):
            raise TransientError("packets of the server are missing: their numbers have a gap")
        self._sequence = (self._sequence + len(numbers)) & 0xFF

    def _make_room(self, missing: int) -> None:
        kept, target = self.waiting, self._buffer
        capacity = len(target) - SLACK
        if kept + missing > capacity or (capacity > USUAL_BYTES and kept + missing <= USUAL_BYTES):
            target = np.empty(max(USUAL_BYTES, kept + missing) + SLACK, np.uint8)
        target[:kept] = self._buffer[self._begin : self._filled]
        self._buffer, self._begin, self._filled = target, 0, kept
