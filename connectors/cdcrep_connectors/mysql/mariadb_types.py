"""Decodes MariaDB's UUID, INET4 and INET6, which the log holds as BINARY(16) and BINARY(4), to their text.

MariaDB source, `plugin/type_uuid/sql_type_uuid.h`: UUIDs of versions below 6 are kept with their last part in front, so
that those made one after the other stand together: node 6, clock 2, high 2, mid 2, low 4.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cdcrep.columns import Bytes
from cdcrep_connectors.mysql.row_layout import Cells
from cdcrep_connectors.mysql.slices import from_fixed, gather_padded

_HEX: Final = np.frombuffer(b"0123456789abcdef", np.uint8)
_STORED_ORDER: Final = np.array([12, 13, 14, 15, 10, 11, 8, 9, 6, 7, 0, 1, 2, 3, 4, 5])
"""Where the bytes of a UUID stand in a record that has its last part in front."""
_DASHES: Final = (8, 13, 18, 23)


def decode_uuid(buffer: Bytes, cells: Cells) -> pa.Array:
    """Decode n UUIDs to `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`."""
    stored = _fixed(buffer, cells, 16)
    swapped = _is_swapped(stored)
    uuid = np.where(swapped[:, None], stored[:, _STORED_ORDER], stored)
    digits = np.empty((len(uuid), 32), np.uint8)
    digits[:, 0::2], digits[:, 1::2] = _HEX[uuid >> 4], _HEX[uuid & 15]
    text = np.full((len(uuid), 36), ord("-"), np.uint8)
    text[:, [i for i in range(36) if i not in _DASHES]] = digits
    return from_fixed(text, cells.valid)


def decode_inet4(buffer: Bytes, cells: Cells) -> pa.Array:
    """Decode n INET4s to `192.0.2.1`; Python runs per distinct value."""
    return _by_distinct(_fixed(buffer, cells, 4), cells, socket.inet_ntoa)


def decode_inet6(buffer: Bytes, cells: Cells) -> pa.Array:
    """Decode n INET6s to `2001:db8::ff00:42:8329`; Python runs per distinct value."""
    return _by_distinct(_fixed(buffer, cells, 16), cells, lambda value: socket.inet_ntop(socket.AF_INET6, value))


def _is_swapped(stored: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell which records have their last part in front: those whose variant bit stands where the clock is then."""
    return np.asarray((stored[:, 6] & 0x80) != 0) & ((stored[:, 8] >> 4) < 6)


def _fixed(buffer: Bytes, cells: Cells, width: int) -> NDArray[np.uint8]:
    padded = gather_padded(buffer, cells.start, cells.end, None, width)
    return (
        np.frombuffer(padded.buffers()[2], np.uint8).reshape(-1, width)
        if len(padded)
        else np.empty((0, width), np.uint8)
    )


def _by_distinct(stored: NDArray[np.uint8], cells: Cells, make: Callable[[bytes], str]) -> pa.Array:
    width = stored.shape[1]
    keys = np.ascontiguousarray(stored).view(f"V{width}").reshape(-1)
    distinct, index = np.unique(keys, return_inverse=True)
    texts = pa.array([make(value.tobytes()) for value in distinct], pa.string())
    mask = None if cells.valid is None else ~cells.valid
    return texts.take(pa.array(index.reshape(-1), mask=mask))
