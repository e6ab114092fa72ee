"""Received bytes are cut into events however they arrive, kept while needed, and forgotten."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from cdcrep.columns import padded
from cdcrep.errors import DataError, TransientError
from cdcrep_connectors.mysql.packets import BLOCK, cut
from cdcrep_connectors.mysql.window import USUAL_BYTES, Window
from tests.unit.mysql.packet_writing import LONGEST, event, event_packets, packets, some_events


def contents(window: Window) -> list[bytes]:
    held = window.packets()
    return [held.buffer[start:end].tobytes() for start, end in zip(held.start, held.end, strict=True)]


def put(window: Window, received: bytes) -> None:
    while received:
        room = window.room()
        count = min(len(room), len(received))
        room[:count] = received[:count]
        window.received(count)
        window.cut()
        received = received[count:]


@pytest.mark.parametrize("longest", [20, 300, 2_000, 100_000])
def test_events_are_found_whatever_they_contain(longest: int) -> None:
    rng = random.Random(longest)
    for _ in range(3 if longest > 2_000 else 60):
        events = some_events(rng, longest)
        window = Window()

        put(window, event_packets(events))

        assert contents(window) == events


@pytest.mark.parametrize("most", [5, 500, 50_000])
def test_events_are_the_same_however_they_arrive(most: int) -> None:
    rng = random.Random(most)
    events = some_events(rng, 400)
    received = event_packets(events)
    window, found = Window(), list[bytes]()

    while received:
        count = rng.randrange(1, most)
        put(window, received[:count])
        received = received[count:]
        ready = rng.randrange(len(window) + 1)
        found += contents(window)[:ready]
        window.consume(ready)

    assert found + contents(window) == events


@pytest.mark.parametrize("payload", [LONGEST - 1, LONGEST, LONGEST + 1, 2 * LONGEST - 1, 2 * LONGEST, 2 * LONGEST + 7])
def test_an_event_that_was_split_is_joined(payload: int) -> None:
    rng = random.Random(payload)
    large = event(rng.randbytes(payload - 1 - 19))
    events = [event(b"before"), large, event(b"after")]
    window = Window()

    put(window, event_packets(events, sequence=1))

    assert contents(window) == events
    window.consume(3)
    put(window, event_packets([event(b"later")], sequence=4 + payload // LONGEST))
    assert contents(window) == [event(b"later")]


def test_a_split_event_may_arrive_in_any_pieces() -> None:
    rng = random.Random(16)
    large = event(rng.randbytes(2 * LONGEST))
    received = event_packets([large, event(b"after")])
    cuts = [*rng.sample(range(len(received)), 20), LONGEST + 4, LONGEST + 5, LONGEST + 8, LONGEST + 9]
    edges = [0, *sorted(cuts), len(received)]
    window = Window()

    for begin, end in pairwise(edges):
        put(window, received[begin:end])

    assert contents(window) == [large, event(b"after")]


def test_numbers_of_packets_go_on_behind_255() -> None:
    events = [event(b"x" * (number % 50)) for number in range(5_000)]
    window = Window()

    put(window, event_packets(events))

    assert contents(window) == events


@pytest.mark.parametrize("before", [0, 3, 1_000])
def test_a_missing_packet_is_noticed(before: int) -> None:
    events = [event(b"x" * 20)] * before
    received = event_packets(events) + event_packets([event(b"y")], sequence=before + 2)

    with pytest.raises(TransientError, match="missing"):
        put(Window(), received)


def test_a_packet_that_is_no_event_waits_until_it_is_complete() -> None:
    window = Window()
    error = b"\xff\xd4\x04#HY000purged"
    received = event_packets([event(b"last")]) + packets([error], sequence=2)

    put(window, received[:-1])
    early = window.other_packet()
    put(window, received[-1:])

    assert early is None
    assert window.other_packet() == error
    assert contents(window) == [event(b"last")]


def test_an_event_is_no_other_packet() -> None:
    window = Window()
    received = event_packets([event(b"half of it")])

    put(window, received[:-1])

    assert window.other_packet() is None


@pytest.mark.parametrize("length", [19, LONGEST - 2, 1 << 31, 0xFFFFFFFF])
def test_a_split_event_of_a_length_that_cannot_be_is_refused(length: int) -> None:
    head = b"\xff\xff\xff\x01\0" + event(b"")[:9] + length.to_bytes(4, "little") + bytes(6)
    window = Window()
    put(window, head + bytes(1 << 20))

    with pytest.raises(DataError, match="cannot be received"):
        window.room()


def test_the_buffer_grows_for_a_large_event_and_shrinks_again() -> None:
    large = event(bytes(24 << 20))
    window = Window()
    put(window, event_packets([large]))
    assert contents(window) == [large]
    window.consume(1)

    put(window, event_packets([event(b"small")], sequence=3))

    assert contents(window) == [event(b"small")]
    assert len(window.packets().buffer) < 2 * USUAL_BYTES


def test_packets_across_blocks_are_cut() -> None:
    events = [event(b"x" * size) for size in (BLOCK - 30, 5, BLOCK + 1, 2 * BLOCK, 7, 65_535 - 19, 65_536 - 19)]
    content = event_packets(events, sequence=255)

    start, end, after, sequence = cut(padded(content), 0, len(content), 255)

    assert [content[a:b] for a, b in zip(start.tolist(), end.tolist(), strict=True)] == events
    assert after == len(content)
    assert sequence == (255 + len(events)) & 0xFF


def test_random_bytes_raise_only_errors_of_ours() -> None:
    rng = random.Random(7)
    for _ in range(300):
        window = Window()
        try:
            put(window, rng.randbytes(rng.randrange(5_000)))
            window.other_packet()
        except (DataError, TransientError):
            continue
