"""Finds events in bytes, verifies their checksums and refuses the types that nobody here knows.

MySQL 9 source documentation, "Binlog Event Header" and "Binlog Event Footer"; MariaDB: the same.

    timestamp 4   type 1   server id 4   length 4 (all of the event)   next position 4   flags 2   content   [ CRC32 4 ]

Whether a checksum ends the events is said by each FORMAT_DESCRIPTION for those behind it; it always has one itself.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cdcrep.columns import LIMIT, SLACK, Bytes, Positions, integers
from cdcrep.errors import DataError
from cdcrep_connectors.mysql.event_types import EventFlag, EventType

HEADER: Final = 19
CHECKSUM: Final = 4
FORMAT_FIXED: Final = 2 + 50 + 4 + 1
"""Bytes of a FORMAT_DESCRIPTION's content in front of the post-header lengths."""
TABLE_ID_OF_SIX_BYTES: Final = 8
"""Post-header length of TABLE_MAP since MySQL 5.1.4."""

_length = struct.Struct("<I").unpack_from

_KNOWN: Final = np.zeros(256, np.bool_)
_KNOWN[[int(kind) for kind in EventType]] = True


@dataclass(frozen=True)
class Events:
    """n events as slices of one buffer, with `columns.SLACK` bytes behind the last."""

    buffer: Bytes
    start: Positions
    """(n,) where the headers begin, ascending."""
    end: Positions
    """(n,) where the contents end, in front of a checksum."""
    types: NDArray[np.uint8]
    """(n,) `EventType` numbers, or others, which may be passed over."""

    def __len__(self) -> int:
        """Count the events."""
        return len(self.start)

    def content(self, index: int) -> bytes:
        """Copy what follows an event's header."""
        return self.buffer[self.start[index] + HEADER : self.end[index]].tobytes()

    def slice(self, first: int, after: int) -> Events:
        """Return the events from `first` to before `after`."""
        part = slice(first, after)
        return Events(self.buffer, self.start[part], self.end[part], self.types[part])

    def one(self, index: int) -> Events:
        """Copy an event, which then outlasts the buffer's use for others."""
        start, end = int(self.start[index]), int(self.end[index])
        buffer = np.zeros(end - start + SLACK, np.uint8)
        buffer[: end - start] = self.buffer[start:end]
        kept = np.zeros(1, np.int64)
        return Events(buffer, kept, kept + (end - start), self.types[index : index + 1].copy())


def cut(buffer: Bytes, begin: int, filled: int) -> tuple[Positions, Positions, int]:
    """Find the events that follow each other in `buffer[begin:filled]`, as in a file.

    Returns where they start and end, and where the first one begins that is not whole.

    Raises:
        DataError: a length that cannot be one.
    """
    content, length_at = memoryview(buffer.data), _length
    starts: list[int] = []
    append = starts.append
    while begin + HEADER <= filled:
        (length,) = length_at(content, begin + 9)
        append(begin)
        if length < HEADER:
            raise DataError(f"the source's binary log has an event of {length} bytes, which is less than its header")
        begin += length
    if begin > filled:
        begin = starts.pop()
    edges = np.array([*starts, begin], np.int64)
    return edges[:-1], edges[1:], begin


class Framing:
    """Verifies one stream's events in order; `checksums` says whether those before a FORMAT_DESCRIPTION have one."""

    def __init__(self, *, checksums: bool) -> None:
        self.checksums = checksums

    def verify(self, buffer: Bytes, start: Positions, end: Positions) -> Events:
        """Check n events, given as slices of `buffer` including checksums.

        Raises:
            DataError: a length, a checksum or a type is wrong, or the source itself reports an incident.
        """
        if len(buffer) > LIMIT:
            raise DataError("more than 2 GiB of events cannot be decoded at once")
        if (end - start < HEADER).any() or (len(end) and int(end.max()) > len(buffer) - SLACK):
            raise DataError("the source sent an event that is shorter than its header")
        if (integers(buffer, "<u4")[start + 9] != end - start).any():
            raise DataError("the source sent an event that does not have the length that it announces")
        types = buffer[start + 4]
        content_end = end.copy()
        formats = np.flatnonzero(types == EventType.FORMAT_DESCRIPTION).tolist()
        first = 0
        for index in [*formats, len(start)]:
            self._verify_run(buffer, start[first:index], content_end[first:index], types[first:index])
            if index < len(start):
                content_end[index] = self._verify_format(buffer, int(start[index]), int(end[index]))
            first = index + 1
        _check_types(buffer, start, types)
        return Events(buffer, start, content_end, types)

    def _verify_run(self, buffer: Bytes, start: Positions, end: Positions, types: NDArray[np.uint8]) -> None:
        """Check events between two FORMAT_DESCRIPTIONs and move their ends in front of the checksums."""
        if not self.checksums:
            # The first event of a connection is made up before the format is known: it has a checksum if it fits.
            rotate = (types == EventType.ROTATE) & (end - start >= HEADER + 8 + CHECKSUM)
            made_up = np.flatnonzero(rotate & ((buffer[start + 17] & EventFlag.ARTIFICIAL) != 0))
            if len(made_up):
                end[made_up] -= CHECKSUM * _matches(buffer, start[made_up], end[made_up])
            return
        if (end - start < HEADER + CHECKSUM).any():
            raise DataError("the source sent an event without a checksum")
        if not _matches(buffer, start, end).all():
            raise DataError(
                "the checksum of an event of the binary log is wrong",
                hint="mysqlbinlog --verify-binlog-checksum on the server tells whether its file is damaged",
            )
        end -= CHECKSUM

    def _verify_format(self, buffer: Bytes, start: int, end: int) -> int:
        """Check a FORMAT_DESCRIPTION, learn whether checksums follow, return where its content ends."""
        content = bytearray(buffer[start:end].tobytes())
        if len(content) < HEADER + FORMAT_FIXED + EventType.TABLE_MAP + 1 + CHECKSUM:
            raise DataError("the FORMAT_DESCRIPTION event of the source is too short")
        # The flag was cleared when the checksum was computed.
        content[17] &= ~EventFlag.IN_USE & 0xFF
        algorithm = content[-CHECKSUM - 1]
        if algorithm > 1:
            raise DataError(f"the source's binary log has checksums of an unknown algorithm ({algorithm})")
        stored = int.from_bytes(content[-CHECKSUM:], "little")
        if zlib.crc32(memoryview(content)[:-CHECKSUM]) != stored:
            raise DataError("the checksum of a FORMAT_DESCRIPTION event of the binary log is wrong")
        post_headers = content[HEADER + FORMAT_FIXED :]
        if content[HEADER] != 4 or content[HEADER + FORMAT_FIXED - 1] != HEADER:
            raise DataError("the source's binary log is not of version 4 (MySQL 5.0 and later)")
        if post_headers[EventType.TABLE_MAP - 1] != TABLE_ID_OF_SIX_BYTES:
            raise DataError("the source's binary log was written by a server older than MySQL 5.1.4")
        self.checksums = algorithm == 1
        return end - CHECKSUM


def _matches(buffer: Bytes, start: Positions, end: Positions) -> NDArray[np.bool_]:
    """Tell which events end with the CRC32 of what precedes it."""
    content, crc32 = memoryview(buffer.data), zlib.crc32
    edges = zip(start.tolist(), (end - CHECKSUM).tolist(), strict=True)
    computed = np.array([crc32(content[begin:stop]) for begin, stop in edges], np.uint32)
    matches: NDArray[np.bool_] = computed == integers(buffer, "<u4")[end - CHECKSUM]
    return matches


def _check_types(buffer: Bytes, start: Positions, types: NDArray[np.uint8]) -> None:
    strange = np.flatnonzero(~_KNOWN[types])
    needed = strange[(buffer[start[strange] + 17] & EventFlag.IGNORABLE) == 0]
    if len(needed):
        raise DataError(
            f"the source sent an event of unknown type {int(types[needed[0]])} that must not be passed over"
        )
    if (types == EventType.INCIDENT).any():
        raise DataError(
            "the source's binary log has an INCIDENT event: changes are missing from it",
            hint="copy the tables anew: cdcrep backfill",
        )
