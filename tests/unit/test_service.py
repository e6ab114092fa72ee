"""The socket of a running pipeline: who may ask, what is answered, and who owns it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cdcrep.connector import Answer
from cdcrep.errors import CdcrepError, ConfigError, DataError, SetupError, TransientError
from cdcrep.position import Position
from cdcrep.service.client import ask_query, ask_status
from cdcrep.service.frames import receive, send
from cdcrep.service.places import candidates, runtime_directory, socket_name
from cdcrep.service.server import Service, claim
from tests.servers.waiting import DEADLINE_SECONDS

NAME = socket_name("shop", "memory:copy")
ROWS = pa.table({"id": pa.array(range(200_000)), "note": pa.array(["long enough to fill a socket"] * 200_000)})


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CDCREP_RUNTIME_DIR", str(tmp_path / "run"))
    return runtime_directory()


def answer(sql: str) -> Answer:
    if sql == "wrong":
        raise DataError("no such table at memory://cdc:canary-service@h/x", hint="look again")
    if sql == "broken":
        raise RuntimeError("canary-internal")
    return Answer(ROWS if sql == "large" else ROWS.slice(0, 2), Position("here"), 1.5)


def service(path: Path, query: Callable[[str], Answer] = answer) -> Service:
    return Service(path, status=lambda: {"state": "streaming", "pid": os.getpid()}, query=query)


@pytest.fixture
def running(directory: Path) -> Iterator[Path]:
    path = directory / NAME
    with service(path):
        yield path


def test_nobody_answers_where_nothing_runs() -> None:
    assert ask_status(NAME) is None
    assert ask_query(NAME, "select 1") is None


@pytest.mark.usefixtures("running")
def test_the_running_process_tells_its_status() -> None:
    assert ask_status(NAME) == {"state": "streaming", "pid": os.getpid()}


@pytest.mark.usefixtures("running")
def test_a_query_brings_rows_and_the_commit_they_were_true_at() -> None:
    found = ask_query(NAME, "select")

    assert found is not None
    assert found.data.equals(ROWS.slice(0, 2))
    assert (found.position, found.commit_time) == ("here", 1.5)


@pytest.mark.usefixtures("running")
def test_a_large_answer_arrives_whole() -> None:
    found = ask_query(NAME, "large")

    assert found is not None
    assert found.data.equals(ROWS)


@pytest.mark.usefixtures("running")
def test_an_error_arrives_as_what_it_was_without_secrets() -> None:
    with pytest.raises(DataError, match="no such table") as failure:
        ask_query(NAME, "wrong")

    assert failure.value.hint == "look again"
    assert "canary" not in failure.value.message


@pytest.mark.usefixtures("running")
def test_an_unexpected_error_is_named_by_its_type_only() -> None:
    with pytest.raises(CdcrepError, match="RuntimeError") as failure:
        ask_query(NAME, "broken")

    assert "canary" not in failure.value.message


def connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    return connection


def test_an_unknown_command_is_refused(running: Path) -> None:
    with connected(running) as connection:
        send(connection, {"command": "explode"})

        assert receive(connection)["error"]["kind"] == "ConfigError"


@pytest.mark.parametrize("garbage", [b"", b"\xff\xff\xff\xff", b"\x00\x00\x00\x02[]", b"\x00\x00\x00\x04nope"])
def test_garbage_does_not_disturb_the_next_client(running: Path, garbage: bytes) -> None:
    with connected(running) as connection:
        connection.sendall(garbage)

    assert ask_status(NAME) is not None


def test_clients_are_served_beside_each_other(directory: Path) -> None:
    both_are_here = threading.Barrier(2, timeout=DEADLINE_SECONDS)

    def meet(sql: str) -> Answer:
        both_are_here.wait()
        return answer(sql)

    found: list[Any] = []
    with service(directory / NAME, meet):
        clients = [threading.Thread(target=lambda: found.append(ask_query(NAME, "select"))) for _ in range(2)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()

    assert len(found) == 2


def test_a_client_notices_an_answer_that_was_cut_off(directory: Path) -> None:
    def cut_off(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            receive(connection)
            send(connection, {"position": "here", "commit_time": None, "rows": 10})
            with connection.makefile("wb") as stream, pa.ipc.new_stream(stream, ROWS.schema) as writer:
                writer.write_table(ROWS.slice(0, 5))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / NAME))
        listener.listen()
        thread = threading.Thread(target=cut_off, args=(listener,))
        thread.start()
        with pytest.raises(TransientError, match="before the whole answer"):
            ask_query(NAME, "select")
        thread.join()


def test_only_the_owner_may_use_the_socket(running: Path) -> None:
    assert stat.S_IMODE(running.stat().st_mode) == 0o600
    assert stat.S_IMODE(running.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_another_user_is_turned_away() -> None:
    with tempfile.TemporaryDirectory() as open_directory:
        path = Path(open_directory, NAME)
        path.parent.chmod(0o755)
        with service(path):
            path.chmod(0o666)
            assert told_to_another_user(path) == b"connected, then nothing"


def told_to_another_user(path: Path) -> bytes:
    """Ask for the status as the user nobody."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        with connected(path) as connection, contextlib.suppress(OSError):
            os.write(writing, b"connected, then ")
            connection.sendall(b'\x00\x00\x00\x15{"command": "status"}')
            os.write(writing, connection.recv(100) or b"nothing")
            os._exit(0)
        os.write(writing, b"nothing")
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        return told.read()


def test_a_second_process_is_refused_with_the_first_ones_number(running: Path) -> None:
    with pytest.raises(SetupError, match=f"already: process {os.getpid()}") as refused, service(running):
        pass

    assert refused.value.hint == f"stop it with: kill {os.getpid()}"
    assert ask_status(NAME) is not None


def test_a_socket_that_was_left_behind_is_replaced(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(directory / NAME))
    assert ask_status(NAME) is None

    with service(directory / NAME):
        assert ask_status(NAME) is not None


def test_the_socket_goes_when_the_process_ends(directory: Path) -> None:
    with service(directory / NAME):
        pass

    assert not (directory / NAME).exists()
    with claim(directory / NAME):
        pass


def test_a_long_directory_name_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDCREP_RUNTIME_DIR", str(tmp_path / ("d" * 150)))

    with service(runtime_directory() / NAME):
        assert ask_status(NAME) is not None


def test_equal_names_into_different_targets_have_different_sockets() -> None:
    assert socket_name("shop", "memory:a") != socket_name("shop", "memory:b")
    assert len(socket_name("s" * 63, "memory:a")) < 48


def test_the_first_directory_that_applies_is_taken() -> None:
    environment = {"CDCREP_RUNTIME_DIR": "/a", "RUNTIME_DIRECTORY": "/b:/c", "XDG_RUNTIME_DIR": "/d"}

    assert candidates(environment)[:3] == [Path("/a"), Path("/b"), Path("/d/cdcrep")]
    assert str(os.geteuid()) in candidates({})[-1].name


@pytest.mark.parametrize("mode", [0o777, 0o720])
def test_a_directory_in_which_others_may_write_is_refused(directory: Path, mode: int) -> None:
    directory.chmod(mode)

    with pytest.raises(ConfigError, match="other users may write"):
        runtime_directory()


def test_a_directory_that_is_a_link_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "link").symlink_to(directory)
    monkeypatch.setenv("CDCREP_RUNTIME_DIR", str(directory / "link"))

    with pytest.raises(ConfigError, match="is a link or a file"):
        runtime_directory()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(directory: Path) -> None:
    os.chown(directory, 65534, 65534)

    with pytest.raises(ConfigError, match="belongs to another user"):
        runtime_directory()
