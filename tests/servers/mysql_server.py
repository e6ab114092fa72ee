"""A throw-away MySQL or MariaDB server that tests may configure, stop and crash."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pymysql

from tests.servers.mysql_binaries import Binaries, NoServerError, give_away, home_directory, unprivileged
from tests.servers.waiting import wait_until

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
START_ATTEMPTS: Final = 5
PORT_TAKEN: Final = re.compile(r"Address already in use|Can't start server: Bind on TCP/IP port")

SETTINGS: Final[Mapping[str, str]] = {
    "server_id": "1",
    "log_bin": "binlog",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "binlog_row_metadata": "FULL",
    "sync_binlog": "0",
    # A crash of the server loses nothing, one of the machine may.
    "innodb_flush_log_at_trx_commit": "2",
    "innodb_buffer_pool_size": "64M",
    "innodb_log_buffer_size": "8M",
    "max_connections": "200",
    "table_open_cache": "400",
    "skip_name_resolve": "ON",
}

MYSQL_SETTINGS: Final[Mapping[str, str]] = {
    "gtid_mode": "ON",
    "enforce_gtid_consistency": "ON",
    "innodb_redo_log_capacity": "32M",
    "mysqlx": "OFF",
    "secure_file_priv": "",
}

MARIADB_SETTINGS: Final[Mapping[str, str]] = {
    "gtid_strict_mode": "ON",
    "log_slave_updates": "ON",
    "innodb_log_file_size": "32M",
}


def default_settings(is_mariadb: bool) -> dict[str, str]:
    """Return the server variables that every test's server starts with."""
    return {**SETTINGS, **(MARIADB_SETTINGS if is_mariadb else MYSQL_SETTINGS)}


class MySQLServer:
    """One server on a free port of 127.0.0.1 and a Unix socket, with the superuser `root` who has no password.

    `settings` are server variables, added to `default_settings`. As root it runs as an unprivileged user. Leaving the
    context kills the server and deletes its data.
    """

    def __init__(self, binaries: Binaries, settings: Mapping[str, str] | None = None) -> None:
        self.release = binaries.release
        self.settings = {**default_settings(self.release.is_mariadb), **(settings or {})}
        self.port = 0
        self._stack = ExitStack()
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._home = stack.enter_context(home_directory())
            self._binaries = self._binaries.reachable_from(self._home)
            if self._binaries.template.exists():
                shutil.copytree(self._binaries.template, self.data_directory)
                give_away(self.data_directory)
            else:
                self._binaries.initialise(self._home, **unprivileged())
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
    def url(self) -> str:
        """The superuser's URL, on TCP."""
        return f"{'mariadb' if self.release.is_mariadb else 'mysql'}://root@127.0.0.1:{self.port}/"

    @property
    def pid(self) -> int | None:
        """The process id of the running server; None when it does not run."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and running else None

    def tool(self, path: str) -> list[str]:
        """Return the command line that runs a program of the release, such as `usr/bin/mysqlbinlog`."""
        return self._binaries.tool(path)

    def connect(self, **parameters: Any) -> pymysql.Connection[Any]:
        """Open an autocommit connection as superuser; `parameters` are those of `pymysql.connect`."""
        given = {"host": "127.0.0.1", "port": self.port, "user": "root", "autocommit": True, **parameters}
        return pymysql.connect(**given)

    def start(self) -> None:
        """Start the server, on the port it had before if any, and wait until it accepts connections.

        Raises:
            NoServerError: the server ended instead; the message ends with its log.
        """
        port_is_fixed = self.port != 0
        for attempt in range(1, START_ATTEMPTS + 1):
            self.port = self.port if port_is_fixed else _free_port()
            log_start = len(self.log_text())
            self._launch()
            wait_until(self._is_settled, START_SECONDS, f"{self.release.name} accepting connections")
            if self.pid is not None:
                return
            # Between choosing a free port and binding it another process may have taken it.
            log = self.log_text()[log_start:]
            if port_is_fixed or not PORT_TAKEN.search(log) or attempt == START_ATTEMPTS:
                raise NoServerError(f"{self.release.name} did not start:\n{log[-4000:]}")

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
                [*self._binaries.command, *self._options()],
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
