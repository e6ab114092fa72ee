"""Replaces compressed events by what is in them, so that whoever reads events knows none but plain ones.

TRANSACTION_PAYLOAD becomes the events of its transaction; MariaDB's compressed ROWS and QUERY events become those that
they would have been. Python per compressed event; nothing is copied where there is none.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from cdcrep.columns import LIMIT, SLACK, Bytes, Positions, padded
from cdcrep.errors import DataError
from cdcrep_connectors.mysql import event_types
from cdcrep_connectors.mysql.compression import LONGEST_TRANSACTION, inflate, open_payload
from cdcrep_connectors.mysql.event_types import EventType
from cdcrep_connectors.mysql.fields import FieldReader
from cdcrep_connectors.mysql.framing import HEADER, Events, Framing, cut

PLAIN: Final = {
    EventType.QUERY_COMPRESSED: EventType.QUERY,
    EventType.WRITE_ROWS_COMPRESSED_V1: EventType.WRITE_ROWS_V1,
    EventType.UPDATE_ROWS_COMPRESSED_V1: EventType.UPDATE_ROWS_V1,
    EventType.DELETE_ROWS_COMPRESSED_V1: EventType.DELETE_ROWS_V1,
    EventType.WRITE_ROWS_COMPRESSED: EventType.WRITE_ROWS,
    EventType.UPDATE_ROWS_COMPRESSED: EventType.UPDATE_ROWS,
    EventType.DELETE_ROWS_COMPRESSED: EventType.DELETE_ROWS,
}
QUERY_FIXED: Final = 13

_COMPRESSED: Final = np.zeros(256, np.bool_)
_COMPRESSED[[int(kind) for kind in (*PLAIN, EventType.TRANSACTION_PAYLOAD)]] = True


def expand(events: Events, limit: int = LONGEST_TRANSACTION) -> tuple[Events, Positions]:
    """Return the events without compression, and (n,) of which of the given events each is or was a part.

    Raises:
        DataError: a compressed event cannot be read, or a transaction is larger than `limit` bytes.
    """
    compressed = np.flatnonzero(_COMPRESSED[events.types])
    if not len(compressed):
        return events, np.arange(len(events))
    parts: list[bytes] = []
    starts: list[Positions] = []
    origins: list[Positions] = []
    size = first = 0
    for index in [*compressed.tolist(), len(events)]:
        if first < index:
            begin = int(events.start[first])
            plain = events.buffer[begin : int(events.start[index - 1] + _span(events, index - 1))].tobytes()
            starts.append(events.start[first:index] - begin + size)
            origins.append(np.arange(first, index))
            parts.append(plain)
            size += len(plain)
        if index < len(events):
            plain = _plain(events, index, limit)
            begins, _, after = cut(padded(plain), 0, len(plain))
            if after != len(plain):
                raise DataError("a compressed transaction of the source ends in the middle of an event")
            starts.append(begins + size)
            origins.append(np.full(len(begins), index))
            parts.append(plain)
            size += len(plain)
        first = index + 1
        if size > LIMIT - SLACK:
            raise DataError("more than 2 GiB of events cannot be decoded at once")
    return _joined(events, padded(b"".join(parts)), np.concatenate(starts), np.concatenate(origins))


def _joined(events: Events, buffer: Bytes, start: Positions, origin: Positions) -> tuple[Events, Positions]:
    """Lay the parts side by side and find where the events' contents end."""
    own = ~_COMPRESSED[events.types[origin]]
    length = np.empty(len(start), np.int64)
    length[own] = (events.end - events.start)[origin[own]]
    for i in np.flatnonzero(~own).tolist():
        length[i] = int.from_bytes(buffer[start[i] + 9 : start[i] + 13].tobytes(), "little")
    end = start + length
    inner = np.flatnonzero(~own)
    # Also checks the types; inside a payload there are no checksums.
    if len(inner):
        _check_inner(Framing(checksums=False).verify(buffer, start[inner], end[inner]))
    return Events(buffer, start, end, buffer[start + 4]), origin


def _check_inner(events: Events) -> None:
    allowed = {EventType.FORMAT_DESCRIPTION, EventType.TRANSACTION_PAYLOAD, EventType.ROTATE}
    if not allowed.isdisjoint(events.types.tolist()):
        raise DataError("a compressed transaction of the source has an event that belongs outside")


def _span(events: Events, index: int) -> int:
    """Return the bytes of an event without its checksum."""
    return int(events.end[index] - events.start[index])


def _plain(events: Events, index: int, limit: int) -> bytes:
    """Return the event or the events that a compressed one stands for."""
    kind, content = EventType(int(events.types[index])), events.content(index)
    if kind is EventType.TRANSACTION_PAYLOAD:
        return open_payload(content, limit)
    head = _query_head(content) if kind is EventType.QUERY_COMPRESSED else _rows_head(kind, content)
    plain = content[:head] + inflate(content[head:], limit)
    header = bytearray(events.buffer[events.start[index] : events.start[index] + HEADER].tobytes())
    header[4] = PLAIN[kind]
    header[9:13] = (HEADER + len(plain)).to_bytes(4, "little")
    return bytes(header) + plain


def _query_head(content: bytes) -> int:
    """Return how many bytes of a QUERY event stand in front of its statement."""
    reader = FieldReader(content, "QUERY event")
    fixed = reader.take(QUERY_FIXED)
    reader.take(int.from_bytes(fixed[11:13], "little") + fixed[8] + 1)
    return reader.at


def _rows_head(kind: EventType, content: bytes) -> int:
    """Return how many bytes of a ROWS event stand in front of its rows."""
    reader = FieldReader(content, "ROWS event")
    reader.take(8)
    if kind in event_types.WITH_EXTRA_INFORMATION:
        reader.take(max(reader.integer(2) - 2, 0))
    columns = reader.packed()
    reader.take((columns + 7) // 8 * (2 if kind in event_types.UPDATE else 1))
    return reader.at
