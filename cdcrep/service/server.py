"""The side of the socket that the running process keeps: one pipeline, one process, one socket."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa
import structlog

from cdcrep.connector import Answer
from cdcrep.errors import ConfigError, SetupError
from cdcrep.service.frames import from_error, may_ask, peer_user, receive, send
from cdcrep.service.places import address

REQUEST_SECONDS: Final = 10.0
"""A client that connects and says nothing is dropped after this."""
ANSWER_SECONDS: Final = 60.0
"""A client that stops reading is dropped after this."""
MOST_CLIENTS: Final = 32


class Service:
    """Answers `status` and `query` while it is entered; entering claims the pipeline on this machine."""

    def __init__(self, path: Path, *, status: Callable[[], dict[str, Any]], query: Callable[[str], Answer]) -> None:
        self._path, self._status, self._query = path, status, query
        self._room = threading.BoundedSemaphore(MOST_CLIENTS)
        self._closing = threading.Event()
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Claim the pipeline and listen.

        Raises:
            SetupError: another process on this machine runs the pipeline.
        """
        with contextlib.ExitStack() as undo:
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.callback(os.close, directory)
            undo.enter_context(claim(self._path))
            self._listener = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            # Linux gives the file the mode of the unbound socket, so that it never exists with another one.
            os.fchmod(self._listener.fileno(), 0o600)
            # The claim is ours: whoever left a socket here is gone.
            self._path.unlink(missing_ok=True)
            self._listener.bind(address(self._path, directory))
            undo.callback(self._path.unlink, missing_ok=True)
            self._listener.listen(MOST_CLIENTS)
            self._resources = undo.pop_all()
        threading.Thread(target=self._listen, name="cdcrep-service", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening; answers that are under way are cut off with the process."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._resources.close()

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                # Closed by us; anything else (too many open files) passes.
                self._closing.wait(0.1)
                continue
            if not may_ask(peer_user(connection)) or not self._room.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), name="cdcrep-client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            # A client that went away in the middle is its own business.
            with connection, contextlib.suppress(OSError):
                connection.settimeout(REQUEST_SECONDS)
                try:
                    header, data = self._answer(receive(connection))
                except Exception as error:
                    structlog.get_logger().debug("request failed", exc_info=error)
                    header, data = from_error(error), None
                connection.settimeout(ANSWER_SECONDS)
                send(connection, header)
                if data is not None:
                    with connection.makefile("wb") as stream, pa.ipc.new_stream(stream, data.schema) as writer:
                        writer.write_table(data, max_chunksize=65_536)
        finally:
            self._room.release()

    def _answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], pa.Table | None]:
        match request:
            case {"command": "status"}:
                return {"status": self._status()}, None
            case {"command": "query", "sql": str(sql)}:
                answer = self._query(sql)
                header = {
                    "position": answer.position,
                    "commit_time": answer.commit_time,
                    "rows": answer.data.num_rows,
                }
                return header, answer.data
        raise ConfigError("the running process does not know this command", hint="is it another version of cdcrep?")


@contextlib.contextmanager
def claim(path: Path) -> Any:
    """Hold the pipeline of this socket for our process; the kernel lets go of it whenever and however we end.

    Raises:
        SetupError: another process holds it.
    """
    # Never deleted: a lock on a file that somebody else has replaced protects nothing.
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            raise SetupError(
                f"another process runs this pipeline already: process {holder or '?'}",
                hint=f"stop it with: kill {holder}" if holder.isdigit() else None,
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
