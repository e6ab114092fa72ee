"""The fault proxy breaks connections as it promises: judged with an echo server, without a database."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.servers.fault_proxy import FaultProxy
from tests.servers.waiting import wait_until

Connect = Callable[[], socket.socket]


@pytest.fixture
def echo_url() -> Iterator[str]:
    """A server that sends back what it receives."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads: list[threading.Thread] = []

        def echo(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(65536):
                        connection.sendall(data)
                except ConnectionError:
                    return

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=echo, args=[connection]))
                threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        yield f"echo://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join(5)
        for thread in threads:
            thread.join(5)


@pytest.fixture
def proxy(echo_url: str, fault_proxy: Callable[[str], FaultProxy]) -> FaultProxy:
    return fault_proxy(echo_url)


@pytest.fixture
def connect(proxy: FaultProxy) -> Iterator[Connect]:
    opened: list[socket.socket] = []

    def open_connection() -> socket.socket:
        opened.append(socket.create_connection(("127.0.0.1", proxy.port), timeout=5))
        return opened[-1]

    yield open_connection
    for connection in opened:
        connection.close()


def answer(connection: socket.socket, request: bytes) -> bytes:
    connection.sendall(request)
    received = b""
    while len(received) < len(request):
        received += connection.recv(65536)
    return received


def test_bytes_pass_unchanged_in_both_directions(connect: Connect) -> None:
    connection = connect()
    request = bytes(range(256)) * 1000

    assert answer(connection, request) == request


def test_cut_resets_every_open_connection(proxy: FaultProxy, connect: Connect) -> None:
    connections = [connect(), connect()]
    for connection in connections:
        answer(connection, b"alive")

    assert proxy.cut() == 2

    for connection in connections:
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_new_connections_work_after_a_cut(proxy: FaultProxy, connect: Connect) -> None:
    answer(connect(), b"alive")
    proxy.cut()

    assert answer(connect(), b"again") == b"again"


def test_cut_after_breaks_a_reply_in_its_middle(proxy: FaultProxy, connect: Connect) -> None:
    connection = connect()
    answer(connection, b"alive")
    proxy.cut_after(reply_bytes=3)

    connection.sendall(b"abcdef")

    received = b""
    with pytest.raises(ConnectionResetError):  # noqa: PT012 - how many reads it takes is TCP's choice
        while len(received) <= 3:
            received += connection.recv(10)
    assert len(received) <= 3


def test_hold_keeps_connections_open_and_silent_until_release(proxy: FaultProxy, connect: Connect) -> None:
    connection = connect()
    answer(connection, b"alive")
    proxy.hold()
    connection.sendall(b"held")
    connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connection.recv(4)

    proxy.release()

    connection.settimeout(5)
    assert connection.recv(4) == b"held"


def test_refuse_resets_new_connections_only(proxy: FaultProxy, connect: Connect) -> None:
    open_before = connect()
    answer(open_before, b"alive")
    proxy.refuse()

    with pytest.raises(ConnectionResetError):
        connect().recv(1)

    assert answer(open_before, b"alive") == b"alive"


def test_a_dropped_reply_breaks_only_the_connection_that_asked(proxy: FaultProxy, connect: Connect) -> None:
    asking, other = connect(), connect()
    answer(asking, b"alive")
    answer(other, b"alive")
    proxy.drop_reply_to(b"COMMIT")

    asking.sendall(b"COM")
    assert asking.recv(3) == b"COM"
    asking.sendall(b"MIT;")

    with pytest.raises(ConnectionResetError):
        asking.recv(1)
    assert answer(other, b"alive") == b"alive"


def test_a_dropped_request_breaks_only_the_connection_that_sent_it(proxy: FaultProxy, connect: Connect) -> None:
    asking, other = connect(), connect()
    answer(asking, b"alive")
    answer(other, b"alive")
    proxy.drop_request(b"COMMIT")

    asking.sendall(b"COMMIT;")

    with pytest.raises(ConnectionResetError):
        asking.recv(1)
    assert answer(other, b"alive") == b"alive"
    assert answer(other, b"COMMIT;") == b"COMMIT;"


def knock(port: int) -> None:
    """Connect and wait for a byte; the reset may meet either."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.recv(1)


def test_a_proxy_in_front_of_nothing_resets(connect: Connect, proxy: FaultProxy) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with FaultProxy(unused.getsockname()[1]) as lonely, pytest.raises(ConnectionResetError):
            knock(lonely.port)


def test_connections_are_counted(proxy: FaultProxy, connect: Connect) -> None:
    for _ in range(3):
        answer(connect(), b"alive")

    assert proxy.connections_seen == 3


def test_waiting_ends_with_the_first_truthy_answer() -> None:
    answers = iter([0, None, "", "ready"])

    assert wait_until(lambda: next(answers), 5) == "ready"


def test_waiting_names_what_it_waited_for() -> None:
    with pytest.raises(AssertionError, match="the moon to rise"):
        wait_until(lambda: False, 0.05, "the moon to rise")
