"""A throw-away MySQL or MariaDB server on a free port: for the demonstration and the tests."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pymysql

from cdcrep.demo.mysql_programs import Programs, give_away, home_directory, unprivileged
from cdcrep.errors import SetupError

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
PAUSE_SECONDS: Final = 0.01
START_ATTEMPTS: Final = 5
PORT_TAKEN: Final = re.compile(r"Address already in use|Can't start server: Bind on TCP/IP port")


class MySQLServer:
    """One server on a free port of 127.0.0.1 and a Unix socket, with the superuser `root` who has no password.

    `settings` are server variables, `template` is a data directory to begin with a copy of. As root it runs as an
    unprivileged user. Leaving the context kills the server and deletes its data, unless it was left running.
    """

    def __init__(self, programs: Programs, settings: Mapping[str, str], template: Path | None = None) -> None:
        self.settings = dict(settings)
        self.port = 0
        self.end_signal = "KILL"
        self._template = template
        self._stack = ExitStack()
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._home = stack.enter_context(home_directory())
            self._programs = self._programs.reachable_from(self._home)
            # Decided once and for all, when the data directory is made.
            folding = [f"--{name}={value}" for name, value in self.settings.items() if name == "lower_case_table_names"]
            if self._template is not None and not folding:
                shutil.copytree(self._template, self.data_directory)
                give_away(self.data_directory)
            else:
                self._programs.initialise(self._home, folding, **unprivileged())
            stack.callback(self.kill)
            self.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def data_directory(self) -> Path:
        """Where tables, binary logs and the certificates `ca.pem`, `server-cert.pem` and so on are."""
        return self._home / "data"

    @property
    def socket_path(self) -> Path:
        """The Unix socket."""
        return self._home / "socket"

    @property
    def is_mariadb(self) -> bool:
        """Tell MariaDB from MySQL."""
        return self._programs.is_mariadb

    @property
    def url(self) -> str:
        """The superuser's URL, on TCP."""
        return f"{'mariadb' if self._programs.is_mariadb else 'mysql'}://root@127.0.0.1:{self.port}/"

    @property
    def pid(self) -> int | None:
        """The process id of the running server; None when it does not run."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and running else None

    @property
    def home(self) -> Path:
        """The temporary directory that holds everything of the server."""
        return self._home

    def tool(self, path: str) -> list[str]:
        """Return the command line that runs a program of the server's packages, such as `usr/bin/mysqlbinlog`."""
        return self._programs.tool(path)

    def connect(self, **parameters: Any) -> pymysql.Connection[Any]:
        """Open an autocommit connection as superuser; `parameters` are those of `pymysql.connect`."""
        given = {"host": "127.0.0.1", "port": self.port, "user": "root", "autocommit": True, **parameters}
        return pymysql.connect(**given)

    def start(self) -> None:
        """Start the server, on the port it had before if any, and wait until it accepts connections.

        Raises:
            SetupError: the server ended instead; the message ends with its log.
        """
        port_is_fixed = self.port != 0
        for attempt in range(1, START_ATTEMPTS + 1):
            self.port = self.port if port_is_fixed else _free_port()
            log_start = len(self.log_text())
            self._launch()
            self._settle()
            if self.pid is not None:
                return
            # Between choosing a free port and binding it another process may have taken it.
            log = self.log_text()[log_start:]
            if port_is_fixed or not PORT_TAKEN.search(log) or attempt == START_ATTEMPTS:
                raise SetupError(f"{self._programs.program} did not start:\n{log[-4000:]}")

    def stop(self) -> None:
        """Shut the server down in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Crash the server: nothing is flushed, the next start recovers from the logs."""
        self._end(signal.SIGKILL)

    def restart(self, *, crash: bool = False) -> None:
        """Stop or crash the server and start it on the same port, with the settings as they are now."""
        self._end(signal.SIGKILL if crash else signal.SIGTERM)
        self.start()

    def log_text(self) -> str:
        """Return everything the server has logged so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def _log(self) -> Path:
        # What the servers print, since they name wrong options before they open a log of their own.
        return self._home / "server.log"

    def _launch(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._programs.command, *self._options()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,
                **unprivileged(),
            )

    def _options(self) -> list[str]:
        places = {
            "datadir": self.data_directory,
            "tmpdir": self._home,
            "socket": self.socket_path,
            "pid_file": self._home / "pid",
            "bind_address": "127.0.0.1",
            "port": self.port,
        }
        return [f"--{name.replace('_', '-')}={value}" for name, value in {**self.settings, **places}.items()]

    def _settle(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._is_settled():
            if time.monotonic() > deadline:
                raise SetupError(f"{self._programs.program} does not accept connections after {START_SECONDS:.0f} s")
            time.sleep(PAUSE_SECONDS)

    def _is_settled(self) -> bool:
        """Tell whether the server accepts connections or has ended."""
        if self.pid is None:
            return True
        try:
            self.connect(connect_timeout=5).close()
        except pymysql.Error:
            return False
        return True

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                os.kill(self._process.pid, how)
            self._process.wait(STOP_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
