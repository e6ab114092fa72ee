"""MySQL's or MariaDB's server programs wherever they are: finding them, and creating empty data directories with them.

For the demonstration and the tests. Both servers refuse to run as root, so a root caller's servers run as the
unprivileged user 65534 ("nobody").
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import cdcrep
from cdcrep.errors import SetupError

SYSTEM: Final = Path("/")
SERVERS: Final = {"usr/sbin/mariadbd": True, "usr/sbin/mysqld": False}
"""Where packages put the server, below their root -> whether it is MariaDB's, whose packages have both names."""
VARIABLE: Final = "CDCREP_MYSQL_ROOT"
UNPRIVILEGED_ID: Final = 65534
INITIALISING_SECONDS: Final = 120.0

# Both servers look up 127.0.0.1 under either name, depending on the machine's hosts file.
ACCOUNT: Final = (
    "CREATE USER IF NOT EXISTS 'root'@'127.0.0.1' IDENTIFIED BY '';\n"
    "GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;\n"
)

MARIADB_SCRIPTS: Final = (
    "m*_system_tables.sql",
    "m*_performance_tables.sql",
    "m*_system_tables_data.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "m*_sys_schema.sql",
)

LIBRARY_PLACES: Final = (
    "usr/lib/*-linux-gnu",
    "lib/*-linux-gnu",
    "usr/lib",
    "usr/lib/*/private",
    "usr/lib/*-linux-gnu/*/private",
)


@dataclass(frozen=True)
class Programs:
    """A server's program with its files: unpacked below `root`, or the system's (`root` is `/`)."""

    syncs: ClassVar[bool] = True
    """What the server writes is flushed to the disk, also where `libeatmydata1` was unpacked with it."""

    root: Path
    is_mariadb: bool

    @property
    def command(self) -> list[str]:
        """The server's command line up to the options that tell it where its files are."""
        share = self._share
        options = ["--no-defaults", f"--basedir={self.root / 'usr'}", f"--lc-messages-dir={share}"]
        options.append(f"--character-sets-dir={share / 'charsets'}")
        plugins = (self.root / "usr/lib/mysql/plugin", self.root / "usr/lib/mariadb/plugin")
        options += [f"--plugin-dir={path}" for path in plugins if path.is_dir()][:1]
        return [*self.tool(f"{self.program}"), *options]

    @property
    def program(self) -> str:
        """The server's path below the root."""
        return next(path for path, is_mariadb in SERVERS.items() if is_mariadb is self.is_mariadb)

    @property
    def _share(self) -> Path:
        places = (self.root / "usr/share/mariadb", self.root / "usr/share/mysql")
        return next(path for path in places if (path / "charsets").is_dir())

    def tool(self, path: str) -> list[str]:
        """Return the command line that runs a program, such as `usr/bin/mariadb-binlog`."""
        loader = [] if self.root == SYSTEM else loader_command(self.root, syncs=self.syncs)
        return [*loader, str(self.root / path)]

    def reported_version(self, **identity: Any) -> str:
        """Return the version that the program reports, as the user that `identity` names; empty if it does not run."""
        try:
            done = subprocess.run(
                [*self.tool(f"{self.program}"), "--no-defaults", "--version"],
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
                **identity,
            )
        except OSError:
            return ""
        found = re.search(r"Ver (\S+)", done.stdout)
        return found[1] if found and done.returncode == 0 else ""

    def initialise(self, home: Path, further: Sequence[str] = (), **identity: Any) -> None:
        """Create `home/data`, with a superuser `root` who needs no password on this machine; `further` are options.

        Raises:
            SetupError: the server's program failed; the message ends with what it said.
        """
        log = home / "initialising.log"
        options = [f"--datadir={home / 'data'}", f"--tmpdir={home}", f"--log-error={log}", *further]
        statements = ""
        if self.is_mariadb:
            (home / "data").mkdir()
            give_away(home / "data")
            options += ["--bootstrap", "--skip-log-bin", "--max-allowed-packet=8M", "--innodb-log-file-size=16M"]
            statements = self._mariadb_system_tables()
        else:
            (home / "account.sql").write_text(ACCOUNT)
            (home / "account.sql").chmod(0o644)
            options += ["--initialize-insecure", f"--init-file={home / 'account.sql'}"]
            options += ["--innodb-redo-log-capacity=16M", "--skip-innodb-doublewrite"]
        done = subprocess.run(
            [*self.command, *options],
            input=statements,
            text=True,
            capture_output=True,
            cwd="/",
            timeout=INITIALISING_SECONDS,
            check=False,
            **identity,
        )
        if done.returncode != 0:
            said = done.stderr + (log.read_text(errors="replace") if log.exists() else "")
            raise SetupError(f"{self.program} could not create a data directory: {said.strip()[-2000:]}")
        # The server's uuid, which the next start makes up.
        (home / "data/auto.cnf").unlink(missing_ok=True)

    def reachable_from(self, home: Path) -> Programs:
        """Return these binaries, or a copy in `home` where the unprivileged user cannot reach them."""
        if self.reported_version(**unprivileged()):
            return self
        # Typical below /root, which nobody else may enter.
        copy = home / "binaries"
        shutil.copytree(self.root, copy, symlinks=True, copy_function=_link_or_copy)
        return replace(self, root=copy)

    def _mariadb_system_tables(self) -> str:
        """Return what MariaDB's own installation script feeds to the server."""
        files = [path for pattern in MARIADB_SCRIPTS for path in sorted(self._share.glob(pattern))]
        # One statement a line.
        begin = "create database mysql;\nuse mysql;\nSET @auth_root_socket=NULL;\nSET @skip_auth_anonymous=1;\n"
        return begin + "".join(path.read_text() for path in files) + "\nFLUSH PRIVILEGES;\n" + ACCOUNT


def find_programs() -> Programs:
    """Find any server: below `$CDCREP_MYSQL_ROOT`, in `.servers/mysql/` of a source checkout, or on the system.

    Raises:
        SetupError: none is there that runs.
    """
    checkout = Path(cdcrep.__file__).resolve().parents[1]
    named = os.environ.get(VARIABLE)
    for root in [Path(named)] if named else [*sorted(checkout.glob(".servers/mysql/*"), reverse=True), SYSTEM]:
        for path, is_mariadb in SERVERS.items():
            found = Programs(root, is_mariadb)
            if (root / path).exists() and found.reported_version():
                return found
    raise SetupError(
        "no server of MySQL or MariaDB on this machine, nor in .servers/mysql",
        hint="apt-get install mariadb-server-core, or set CDCREP_MYSQL_ROOT to the root below which usr/sbin/mysqld is",
    )


def loader_command(directory: Path, *, syncs: bool) -> list[str]:
    """Return what goes before a program of an unpacked folder, so that it finds the libraries unpacked with it.

    Without `syncs`, fsync does nothing where `libeatmydata1` is among them.
    """
    libraries = [place for pattern in LIBRARY_PLACES for place in sorted(directory.glob(pattern)) if place.is_dir()]
    loader = next(path for place in libraries for path in sorted(place.glob("ld-linux-*.so.*")))
    command = [str(loader), "--library-path", ":".join(str(place) for place in libraries)]
    ignoring = [] if syncs else [path for place in libraries for path in place.glob("libeatmydata.so")]
    return [*command, "--preload", str(ignoring[0])] if ignoring else command


def unprivileged() -> dict[str, Any]:
    """Return the parameters with which `subprocess` starts a program as an ordinary user, also for root."""
    return {"user": UNPRIVILEGED_ID, "group": UNPRIVILEGED_ID, "extra_groups": []} if os.geteuid() == 0 else {}


@contextmanager
def home_directory() -> Iterator[Path]:
    """Make a temporary directory that belongs to the user of `unprivileged`."""
    # Short and below /tmp: a socket's path holds 107 bytes, and the unprivileged user must reach it.
    home = Path(tempfile.mkdtemp(prefix="cdcrep-mysql-", dir="/tmp"))
    try:
        give_away(home)
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def give_away(path: Path) -> None:
    """Give a file or a directory with what is below to the user of `unprivileged`."""
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{UNPRIVILEGED_ID}:{UNPRIVILEGED_ID}", path], check=True)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
