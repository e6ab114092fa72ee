"""Cuts what a walsender sends into CopyData messages (PostgreSQL manual, "Message Formats"; the same since 7.4).

Byte1('d')   Int32 length (itself included)   Byten payload
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from cdcrep.columns import Bytes, Positions, integers
from cdcrep.errors import DataError

COPY_DATA: Final = ord("d")
LONGEST: Final = 1 << 30
"""PostgreSQL's own limit of a message is one byte less (MaxAllocSize)."""

VECTORISED_FROM: Final = 4096
"""Bytes from which looking at all of them at once is quicker than walking from message to message."""

BLOCK: Final = 96 << 10
"""Bytes looked at together: the intermediate masks stay in the processor's cache and below malloc's threshold for
memory that is fetched anew from the kernel each time. Measured: 60 ns a message; without blocks 170, walking 115."""

_length = struct.Struct(">I").unpack_from


@dataclass(frozen=True)
class Frames:
    """CopyData payloads in one buffer, valid until the next read.

    `start` and `end` are (n,) offsets into `buffer`, ascending; `columns.SLACK` bytes follow the last payload.
    """

    buffer: Bytes
    start: Positions
    end: Positions
    fresh: int = 0
    """Index of the first payload that the reader had not returned before."""

    def __len__(self) -> int:
        """Count the payloads."""
        return len(self.start)


def cut(buffer: Bytes, begin: int, filled: int) -> tuple[Positions, Positions, int]:
    """Find the CopyData payloads in `buffer[begin:filled]`, which begins with a message.

    Returns start and end of the payloads, and where the first message begins that is incomplete or no CopyData.

    Raises:
        DataError: a length that cannot be one.
    """
    starts: list[Positions] = []
    ends: list[Positions] = []
    while begin < filled and buffer[begin] == COPY_DATA:
        found = _chain if filled - begin >= VECTORISED_FROM else _walk
        some_starts, some_ends, after = found(buffer, begin, min(filled, begin + BLOCK))
        if not len(some_starts):
            # A message larger than a block, or one whose first bytes are not the usual ones.
            some_starts, some_ends, after = _walk(buffer, begin, filled, most=1)
        if not len(some_starts):
            break
        starts.append(some_starts)
        ends.append(some_ends)
        begin = after
    if not starts:
        return np.empty(0, np.int64), np.empty(0, np.int64), begin
    return np.concatenate(starts), np.concatenate(ends), begin


def message_end(buffer: Bytes, begin: int, filled: int) -> int | None:
    """Return where the message at `begin` ends, also if that is not filled yet; None if its length is not there yet.

    Raises:
        DataError: a length that cannot be one.
    """
    if begin + 5 > filled:
        return None
    (length,) = _length(buffer.data, begin + 1)
    _check_length(length)
    return begin + 1 + int(length)


def _chain(buffer: Bytes, begin: int, filled: int) -> tuple[Positions, Positions, int]:
    """Guess where messages begin by their first bytes, and prove it: each must begin where the one before it ends.

    Stops at the first wrong guess: the bytes of a log position may look like a message's first ones.
    """
    here = buffer[begin : filled - 6]
    guess = here == COPY_DATA
    guess &= buffer[begin + 1 : filled - 5] == 0  # of the length: messages of 16 MiB and more are left to the walk
    starts = np.flatnonzero(guess) + begin
    kind = buffer[starts + 5]
    starts = starts[(kind == ord("w")) | (kind == ord("k"))]
    if not len(starts) or starts[0] != begin:
        return starts[:0], starts[:0], begin
    ends = starts + 1 + integers(buffer, ">u4")[starts + 1]
    proven = len(starts)
    broken = np.flatnonzero(starts[1:] != ends[:-1])
    if len(broken):
        proven = int(broken[0]) + 1
    if ends[proven - 1] > filled:
        proven -= 1
    return starts[:proven] + 5, ends[:proven], int(ends[proven - 1]) if proven else begin


def _walk(buffer: Bytes, begin: int, filled: int, most: int = BLOCK) -> tuple[Positions, Positions, int]:
    """Go from message to message by their lengths."""
    content = memoryview(buffer.data)
    starts: list[int] = []
    ends: list[int] = []
    while begin + 5 <= filled and len(starts) < most and content[begin] == COPY_DATA:
        (length,) = _length(content, begin + 1)
        if not 4 <= length <= LONGEST:
            _check_length(length)
        end = begin + 1 + length
        if end > filled:
            break
        starts.append(begin + 5)
        ends.append(end)
        begin = end
    return np.array(starts, np.int64), np.array(ends, np.int64), begin


def _check_length(length: int) -> None:
    if not 4 <= length <= LONGEST:
        raise DataError(f"the server sent a message of {length} bytes, which the protocol does not allow")
