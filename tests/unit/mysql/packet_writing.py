"""Writes events into packets as a server does."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable

LONGEST = (1 << 24) - 1


def event(content: bytes, kind: int = 30) -> bytes:
    """An event with a valid header and no checksum."""
    return struct.pack("<IBIIIH", 1_700_000_000, kind, 1, 19 + len(content), 4711, 0) + content


def packets(payloads: Iterable[bytes], sequence: int = 1) -> bytes:
    """Payloads as packets, split where they are too long for one."""
    written = []
    for payload in payloads:
        for begin in range(0, len(payload) + 1, LONGEST):
            part = payload[begin : begin + LONGEST]
            written.append(struct.pack("<I", len(part) | (sequence & 0xFF) << 24) + part)
            sequence += 1
    return b"".join(written)


def event_packets(events: Iterable[bytes], sequence: int = 1) -> bytes:
    """Events as packets."""
    return packets((b"\0" + one for one in events), sequence)


def some_events(rng: random.Random, longest: int) -> list[bytes]:
    """Events of which some contain what looks like packets, or zeros only."""
    inner = event_packets([event(b"inner")], rng.randrange(256))
    fillings = [inner, b"\0", b"\xff", rng.randbytes(30)]
    return [
        event((rng.choice(fillings) * longest)[: rng.randrange(longest)], rng.choice([2, 16, 19, 30, 31, 33]))
        for _ in range(rng.randrange(1, 600))
    ]
