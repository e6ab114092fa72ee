"""Received bytes are cut into payloads, kept while needed, and forgotten."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from cdcrep.columns import padded
from cdcrep.errors import DataError
from cdcrep_connectors.postgres.frames import BLOCK, cut
from cdcrep_connectors.postgres.window import USUAL_BYTES, Window
from tests.properties.pgoutput_messages import copy_data, keepalive, xlog


def contents(window: Window) -> list[bytes]:
    held = window.frames()
    return [held.buffer[start:end].tobytes() for start, end in zip(held.start, held.end, strict=True)]


def put(window: Window, received: bytes) -> None:
    while received:
        room = window.room()
        count = min(len(room), len(received))
        room[:count] = received[:count]
        window.received(count)
        window.cut()
        received = received[count:]


def some_payloads(rng: random.Random, longest: int) -> list[bytes]:
    # "d" and zero bytes everywhere: what looks like the beginning of a message.
    return [
        xlog(rng.choice([b"d\0\0\0", b"d\0w", b"w\0", b"I"]) * rng.randrange(longest), lsn=0x6400_0000_0064_0077)
        if rng.random() < 0.8
        else keepalive(rng.randrange(1 << 40))
        for _ in range(rng.randrange(1, 400))
    ]


@pytest.mark.parametrize("longest", [8, 300, 40_000])
def test_payloads_are_found_whatever_they_contain(longest: int) -> None:
    rng = random.Random(longest)
    for _ in range(10 if longest > 1000 else 100):
        payloads = some_payloads(rng, longest)
        window = Window()

        put(window, copy_data(payloads))

        assert contents(window) == payloads


def test_payloads_are_the_same_however_they_arrive() -> None:
    rng = random.Random(5)
    payloads = some_payloads(rng, 30)
    received = copy_data(payloads)
    window, found = Window(), []

    while received:
        count = rng.randrange(1, 500)
        put(window, received[:count])
        received = received[count:]
        ready = rng.randrange(len(window) + 1)
        found += contents(window)[:ready]
        window.consume(ready)

    assert found + contents(window) == payloads


def test_a_message_of_16_mib_and_more_is_cut() -> None:
    payloads = [xlog(b"I" * (17 << 20)), keepalive(1), xlog(b"I" * (2 * BLOCK))]
    content = copy_data(payloads)

    start, end, after = cut(padded(content), 0, len(content))

    assert (end - start).tolist() == [len(payload) for payload in payloads]
    assert after == len(content)


@pytest.mark.parametrize("length", [0, 3, (1 << 30) + 1, 0xFFFFFFFF])
@pytest.mark.parametrize("before", [0, 300])
def test_a_length_that_cannot_be_is_refused(length: int, before: int) -> None:
    content = copy_data([keepalive(1)] * before) + b"d" + length.to_bytes(4, "big") + bytes(30)

    with pytest.raises(DataError, match="protocol"):
        put(Window(), content)


def test_the_buffer_grows_for_a_large_message_and_shrinks_again() -> None:
    window = Window()
    large = xlog(b"x" * (5 * USUAL_BYTES))

    put(window, copy_data([keepalive(1), large])[:-1])
    assert len(window) == 1
    grown = len(window.frames().buffer)
    put(window, copy_data([large])[-1:])
    assert contents(window)[1] == large
    window.consume(2)
    put(window, copy_data([keepalive(2)]))

    assert grown > 5 * USUAL_BYTES
    assert len(window.frames().buffer) < 2 * USUAL_BYTES
    assert contents(window) == [keepalive(2)]


def test_other_messages_are_taken_out_between_payloads() -> None:
    window = Window()
    put(window, copy_data([keepalive(1)]) + b"E\0\0\0\x08oops" + copy_data([keepalive(2)]) + b"c\0\0\0")

    taken = window.other_message()
    window.cut()

    assert taken == (ord("E"), b"oops")
    assert contents(window) == [keepalive(1), keepalive(2)]
    assert window.other_message() is None


def test_a_message_beyond_what_arrays_can_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdcrep_connectors.postgres.window.LIMIT", 2 * USUAL_BYTES)

    with pytest.raises(DataError, match="more than can be held"):
        put(Window(), copy_data([xlog(b"x" * (2 * USUAL_BYTES))]))


@pytest.mark.parametrize("batches", [[[keepalive(1)], [xlog(b"a"), xlog(b"b" * USUAL_BYTES)], [keepalive(2)]]])
def test_payloads_without_frames_are_kept_alike(batches: Sequence[Sequence[bytes]]) -> None:
    window = Window()

    for payloads in batches:
        window.append(payloads)

    assert contents(window) == [payload for payloads in batches for payload in payloads]
    assert window.waiting == sum(len(payload) for payloads in batches for payload in payloads)
