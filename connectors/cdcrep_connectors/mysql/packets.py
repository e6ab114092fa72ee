"""Cuts what a server sends after a dump command into events.

MySQL source documentation, "MySQL Packets" and "Binlog Network Stream":

    length 3   sequence 1   [ status 1: 0 for an event, 0xff for an error, 0xfe for the end   event ]

A payload of 2^24-1 bytes and more is split: packets of that length follow each other until one is shorter.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from cdcrep.columns import LIMIT, Bytes, Positions, integers
from cdcrep.errors import DataError, TransientError

HEADER: Final = 4
OK: Final = 0
LONGEST: Final = (1 << 24) - 1
LARGEST: Final = LIMIT - (64 << 20)
"""Of an event that is received: the buffer also holds what waits."""

EVENT_LENGTH: Final = 9
"""Where an event's own length stands in it."""

SMALL: Final = 512
"""Mean length of packets up to which looking at all bytes at once is quicker than walking from packet to packet."""

VECTORISED_FROM: Final = 4096
"""Bytes that make it worth while."""

SAMPLE: Final = 64
"""Packets that are walked at a time, to learn their mean length."""

BLOCK: Final = 96 << 10
"""Bytes looked at together, so that the intermediate masks stay in the processor's cache."""

EVENT_TYPE: Final = HEADER + 1 + 4
LOOK_AHEAD: Final = HEADER + 1 + EVENT_LENGTH + 4

_NONE: Final = np.empty(0, np.int64)

_word = struct.Struct("<I").unpack_from


@dataclass(frozen=True)
class Packets:
    """Events in one buffer, valid until the next read.

    `start` and `end` are (n,) offsets into `buffer`, ascending, from an event's header to behind its checksum;
    `columns.SLACK` bytes follow the last event.
    """

    buffer: Bytes
    start: Positions
    end: Positions
    fresh: int = 0
    """Index of the first event that the reader had not returned before."""

    def __len__(self) -> int:
        """Count the events."""
        return len(self.start)


def cut(buffer: Bytes, begin: int, filled: int, sequence: int) -> tuple[Positions, Positions, int, int]:
    """Find the events in `buffer[begin:filled]`, which begins with the packet numbered `sequence` (modulo 256).

    Returns start and end of the events, where the first packet begins that is incomplete or no event, and its number.
    The parts of an event that was split are moved together, inside the buffer.

    Raises:
        TransientError: packets are missing.
    """
    starts: list[Positions] = []
    ends: list[Positions] = []
    small = False
    while True:
        some, some_ends, after = _NONE, _NONE, begin
        if small:
            some, some_ends, after = _chain(buffer, begin, min(filled, begin + BLOCK))
        if not len(some):
            some, some_ends, after = _walk(buffer, begin, filled)
        small = after - begin <= SMALL * len(some) and filled - after >= VECTORISED_FROM
        if len(some):
            numbers = buffer[some - 2]
            sequence = _check_sequence(numbers, sequence)
        else:
            joined = _join(buffer, begin, filled, sequence)
            if joined is None:
                break
            start, end, after, sequence = joined
            some, some_ends = np.array([start]), np.array([end])
        starts.append(some)
        ends.append(some_ends)
        begin = after
    if not starts:
        return _NONE, _NONE, begin, sequence
    return np.concatenate(starts), np.concatenate(ends), begin, sequence


def needed(buffer: Bytes, begin: int, filled: int) -> int:
    """Return how many bytes of `buffer[begin:]` the packet at `begin` takes, with all its parts; 0: not known yet.

    Raises:
        DataError: more than can be held.
    """
    if begin + HEADER > filled:
        return 0
    length = _word(buffer.data, begin)[0] & LONGEST
    if length < LONGEST:
        return HEADER + int(length)
    if begin + LOOK_AHEAD > filled:
        return LOOK_AHEAD
    payload = 1 + int(_word(buffer.data, begin + HEADER + 1 + EVENT_LENGTH)[0])
    if payload < LONGEST or payload > LARGEST:
        raise DataError(f"the source sent an event of {payload - 1} bytes, which cannot be received")
    return payload + HEADER * (payload // LONGEST + 1)


def _chain(buffer: Bytes, begin: int, filled: int) -> tuple[Positions, Positions, int]:
    """Guess where packets begin by the length that packet and event agree on, and prove it.

    Each must begin where the one before it ends. Packets of 64 KiB and more are left to the walk.
    """
    last = filled - LOOK_AHEAD
    guess = buffer[begin + 2 : last + 2] == 0
    guess &= buffer[begin + HEADER : last + HEADER] == OK
    guess &= buffer[begin + EVENT_TYPE : last + EVENT_TYPE] != 0  # which zero bytes in rows would be
    guess &= buffer[begin + LOOK_AHEAD - 1 : filled - 1] == 0
    guess &= buffer[begin + LOOK_AHEAD - 2 : filled - 2] == 0
    starts = np.flatnonzero(guess) + begin
    words = integers(buffer, "<u4")
    lengths = words[starts] & LONGEST
    likely = lengths == words[starts + LOOK_AHEAD - 4] + 1
    starts, lengths = starts[likely], lengths[likely]
    if not len(starts) or starts[0] != begin:
        return starts[:0], starts[:0], begin
    ends = starts + HEADER + lengths
    broken = np.flatnonzero(starts[1:] != ends[:-1])
    proven = int(broken[0]) + 1 if len(broken) else len(starts)
    if ends[proven - 1] > filled:
        proven -= 1
    return starts[:proven] + HEADER + 1, ends[:proven], int(ends[proven - 1]) if proven else begin


def _walk(buffer: Bytes, begin: int, filled: int) -> tuple[Positions, Positions, int]:
    """Go from packet to packet by their lengths."""
    content = memoryview(buffer.data)
    starts: list[int] = []
    ends: list[int] = []
    while begin + HEADER < filled and len(starts) < SAMPLE and content[begin + HEADER] == OK:
        length = _word(content, begin)[0] & LONGEST
        end = begin + HEADER + length
        if length in (0, LONGEST) or end > filled:
            break
        starts.append(begin + HEADER + 1)
        ends.append(end)
        begin = end
    return np.array(starts, np.int64), np.array(ends, np.int64), begin


def _join(buffer: Bytes, begin: int, filled: int, sequence: int) -> tuple[int, int, int, int] | None:
    """Move the parts of a split event together; None if it is no such event or not all of it is there."""
    if begin + HEADER >= filled or buffer[begin + HEADER] != OK:
        return None
    parts: list[tuple[int, int]] = []
    at, length = begin, LONGEST
    while length == LONGEST:
        if at + HEADER > filled:
            return None
        length = int(_word(buffer.data, at)[0]) & LONGEST
        parts.append((at + HEADER, length))
        at += HEADER + length
        if at > filled or (len(parts) == 1 and length < LONGEST):
            return None
    numbers = buffer[[start - 1 for start, _ in parts]]
    sequence = _check_sequence(numbers, sequence)
    end = parts[0][0]
    for start, length in parts:
        buffer[end : end + length] = buffer[start : start + length]
        end += length
    return begin + HEADER + 1, end, at, sequence


def _check_sequence(numbers: Bytes, sequence: int) -> int:
    """Compare the packets' numbers with those that must come; return the next one."""
    expected = (np.arange(len(numbers)) + sequence).astype(np.uint8)
    if not np.array_equal(numbers, expected):
        raise TransientError("packets of the server are missing: their numbers have a gap")
    return (sequence + len(numbers)) & 0xFF
