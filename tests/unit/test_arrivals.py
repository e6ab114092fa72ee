"""When a stream's bytes are taken from its socket: at once, or after a rest."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from cdcrep_connectors.relational import arrivals
from cdcrep_connectors.relational.arrivals import BUSY_BYTES, Arrivals


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return client, server


class Following:
    """A reader that counts what each look at its socket brings."""

    def __init__(self, stream: socket.socket, server: socket.socket) -> None:
        self.stream, self.server = stream, server
        self.wake, self.waker = socket.socketpair()
        self.stream.setblocking(False)
        self.looks: list[int] = []
        self.arrivals = Arrivals(stream, self.wake, self._receive, lambda: False)

    def _receive(self) -> int:
        total = 0
        try:
            while count := len(self.stream.recv(1 << 20)):
                total += count
        except BlockingIOError:
            pass
        self.looks.append(total)
        return total

    def make_busy(self) -> None:
        """Let more arrive than little."""
        self.server.sendall(bytes(BUSY_BYTES))
        taken = 0
        while taken < BUSY_BYTES:
            taken += self.arrivals.wait(10)
        self.looks.clear()

    def gather_until_woken(self) -> int:
        """Send a byte, begin to gather, send another, end the rest; return how many bytes were gathered."""
        taken: list[int] = []
        self.server.sendall(b"a")
        thread = threading.Thread(target=lambda: taken.append(self.arrivals.gather()))
        thread.start()
        thread.join(0.1)
        self.server.sendall(b"b")
        self.waker.send(b"!")
        thread.join(60)
        return taken[0]

    def close(self) -> None:
        for one in (self.stream, self.server, self.wake, self.waker):
            one.close()


@pytest.fixture(params=[tcp_pair, socket.socketpair], ids=["tcp", "unix"])
def following(request: pytest.FixtureRequest) -> Iterator[Following]:
    following = Following(*request.param())
    yield following
    following.close()


def test_little_is_taken_at_once(following: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "REST_SECONDS", 60.0)
    assert following.gather_until_woken() == 1


def test_while_much_arrives_a_rest_lets_more_come(following: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than the test: only waking ends it.
    monkeypatch.setattr(arrivals, "REST_SECONDS", 60.0)
    following.make_busy()
    assert following.gather_until_woken() == 2


def test_a_resting_reader_leaves_the_socket_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "REST_SECONDS", 60.0)
    following = Following(*tcp_pair())
    following.make_busy()
    following.gather_until_woken()
    following.close()
    assert following.looks == [2]


def test_a_rest_that_brings_little_is_the_last(following: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    following.make_busy()
    monkeypatch.setattr(arrivals, "REST_SECONDS", 0.0)
    assert following.arrivals.gather() == 0
    monkeypatch.setattr(arrivals, "REST_SECONDS", 60.0)
    assert following.gather_until_woken() == 1


def test_a_wake_up_ends_a_wait(following: Following) -> None:
    following.waker.send(b"!")
    assert following.arrivals.wait(60) == 0
