"""Writes MySQL's binary JSON: the opposite of the decoder, from the server's source, for tests."""

from __future__ import annotations

import struct
from typing import Any

INT16, UINT16, INT32, UINT32, INT64, UINT64, DOUBLE, STRING = range(5, 13)


def write_document(value: Any, *, large: bool = False) -> bytes:
    kind, content = _write(value, large)
    return bytes([kind]) + content


def _write(value: Any, large: bool) -> tuple[int, bytes]:
    if value is None or isinstance(value, bool):
        return 4, bytes([0 if value is None else 1 if value else 2])
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return DOUBLE, struct.pack("<d", value)
    if isinstance(value, str):
        return STRING, _length(len(value.encode())) + value.encode()
    if isinstance(value, dict):
        items = sorted(value.items(), key=lambda item: (len(item[0].encode()), item[0].encode()))
        return int(large), _container([key.encode() for key, _ in items], [item for _, item in items], large)
    return 2 + large, _container(None, list(value), large)


def _integer(value: int) -> tuple[int, bytes]:
    for kind, layout, low, high in (
        (INT16, "<h", -(1 << 15), 1 << 15),
        (UINT16, "<H", 0, 1 << 16),
        (INT32, "<i", -(1 << 31), 1 << 31),
        (UINT32, "<I", 0, 1 << 32),
        (INT64, "<q", -(1 << 63), 1 << 63),
    ):
        if low <= value < high:
            return kind, struct.pack(layout, value)
    return UINT64, struct.pack("<Q", value)


def _container(keys: list[bytes] | None, values: list[Any], large: bool) -> bytes:
    number, width = ("<I", 4) if large else ("<H", 2)
    inlined = {4, INT16, UINT16} | ({INT32, UINT32} if large else set())
    at = 2 * width + len(values) * (width + 1) + (len(keys) * (width + 2) if keys is not None else 0)
    key_entries, names = b"", b""
    for key in keys or []:
        key_entries += struct.pack(number, at) + struct.pack("<H", len(key))
        names += key
        at += len(key)
    entries, contents = b"", b""
    for value in values:
        kind, content = _write(value, large)
        if kind in inlined:
            entries += bytes([kind]) + content.ljust(width, b"\0")
        else:
            entries += bytes([kind]) + struct.pack(number, at)
            contents += content
            at += len(content)
    return struct.pack(number, len(values)) + struct.pack(number, at) + key_entries + entries + names + contents


def _length(length: int) -> bytes:
    content = b""
    while length >= 0x80:
        content += bytes([length & 0x7F | 0x80])
        length >>= 7
    return content + bytes([length])
