"""Finds MySQL's and MariaDB's server programs, and creates empty data directories with them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.servers.debian_packages import loader_command

UNPACKED: Final = Path(__file__).resolve().parents[2] / ".servers/mysql"
SYSTEM: Final = Path("/")
UNPRIVILEGED_ID: Final = 65534
INITIALISING_SECONDS: Final = 120.0

# Both servers look up 127.0.0.1 under either name, depending on the machine's hosts file.
ACCOUNT: Final = (
    "CREATE USER IF NOT EXISTS 'root'@'127.0.0.1' IDENTIFIED BY '';\n"
    "GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;\n"
)


@dataclass(frozen=True)
class Release:
    """A version of MySQL or MariaDB, and the Debian release whose packages hold it."""

    name: str
    """`mysql-9.7`; also the folder that it is unpacked into."""
    suite: str
    packages: tuple[str, ...]
    image: str
    """Its name at Docker's registry."""

    @property
    def is_mariadb(self) -> bool:
        """Tell MariaDB from MySQL."""
        return self.name.startswith("mariadb-")

    @property
    def version(self) -> str:
        """What its versions begin with, up to and including a dot."""
        return self.name.partition("-")[2] + "."

    @property
    def program(self) -> str:
        """The server's name, below /usr/sbin."""
        return "mariadbd" if self.is_mariadb else "mysqld"

    @property
    def variable(self) -> str:
        """The environment variable that names a running server of this version."""
        return "CDCREP_TEST_" + re.sub(r"\W", "_", self.name).upper()


# Tests crash servers, not machines: without fsync statements on tables take a fraction of their time.
NO_SYNC: Final = "libeatmydata1"
MARIADB_SCRIPTS: Final = (
    "m*_system_tables.sql",
    "m*_performance_tables.sql",
    "m*_system_tables_data.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "m*_sys_schema.sql",
)
MARIADB_PACKAGES: Final = ("mariadb-server-core", "mariadb-client-core", NO_SYNC)

RELEASES: Final = {
    release.name: release
    for release in (
        Release("mysql-9.7", "sid", ("mysql-server-core", NO_SYNC), "mysql:9.7"),
        Release("mariadb-10.11", "bookworm", MARIADB_PACKAGES, "mariadb:10.11"),
        Release("mariadb-11.8", "trixie", MARIADB_PACKAGES, "mariadb:11.8"),
    )
}


class NoServerError(Exception):
    """A server cannot be found, or did not start; the message says why and what to do."""


@dataclass(frozen=True)
class Binaries:
    """A server's program with its files: unpacked below `root`, or the system's (`root` is `/`)."""

    release: Release
    root: Path

    @property
    def command(self) -> list[str]:
        """The server's command line up to the options that tell it where its files are."""
        share = self._share
        options = ["--no-defaults", f"--basedir={self.root / 'usr'}", f"--lc-messages-dir={share}"]
        options.append(f"--character-sets-dir={share / 'charsets'}")
        plugins = (self.root / "usr/lib/mysql/plugin", self.root / "usr/lib/mariadb/plugin")
        options += [f"--plugin-dir={path}" for path in plugins if path.is_dir()][:1]
        return [*self.tool(f"usr/sbin/{self.release.program}"), *options]

    @property
    def template(self) -> Path:
        """A data directory to copy instead of initialising one, where there is one."""
        return self.root / "data-template"

    @property
    def _share(self) -> Path:
        places = (self.root / "usr/share/mariadb", self.root / "usr/share/mysql")
        return next(path for path in places if (path / "charsets").is_dir())

    def tool(self, path: str) -> list[str]:
        """Return the command line that runs a program, such as `usr/bin/mariadb-binlog`."""
        loader = [] if self.root == SYSTEM else loader_command(self.root)
        return [*loader, str(self.root / path)]

    def reported_version(self, **identity: Any) -> str:
        """Return the version that the program reports, as the user that `identity` names; empty if it does not run."""
        try:
            done = subprocess.run(
                [*self.tool(f"usr/sbin/{self.release.program}"), "--no-defaults", "--version"],
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

    def initialise(self, home: Path, **identity: Any) -> None:
        """Create `home/data`, with a superuser `root` who needs no password on this machine.

        Raises:
            NoServerError: the server's program failed; the message ends with what it said.
        """
        log = home / "initialising.log"
        options = [f"--datadir={home / 'data'}", f"--tmpdir={home}", f"--log-error={log}"]
        statements = ""
        if self.release.is_mariadb:
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
            raise NoServerError(f"{self.release.name} could not create a data directory: {said.strip()[-2000:]}")
        # The server's uuid, which the next start makes up.
        (home / "data/auto.cnf").unlink(missing_ok=True)

    def create_template(self) -> None:
        """Initialise `template`, unless it is there."""
        if self.template.exists():
            return
        with home_directory() as home:
            self.reachable_from(home).initialise(home, **unprivileged())
            unfinished = self.template.with_name("data-unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(home / "data", unfinished)
        # Servers may later run as another user than the one who created it.
        subprocess.run(["chmod", "-R", "a+rX", unfinished], check=True)
        unfinished.rename(self.template)

    def reachable_from(self, home: Path) -> Binaries:
        """Return these binaries, or a copy in `home` where the unprivileged user cannot reach them."""
        if self.reported_version(**unprivileged()):
            return self
        # Typical below /root, which nobody else may enter.
        copy = home / "binaries"
        shutil.copytree(self.root, copy, symlinks=True, copy_function=_link_or_copy)
        return Binaries(self.release, copy)

    def _mariadb_system_tables(self) -> str:
        """Return what MariaDB's own installation script feeds to the server."""
        files = [path for pattern in MARIADB_SCRIPTS for path in sorted(self._share.glob(pattern))]
        # One statement a line.
        begin = "create database mysql;\nuse mysql;\nSET @auth_root_socket=NULL;\nSET @skip_auth_anonymous=1;\n"
        return begin + "".join(path.read_text() for path in files) + "\nFLUSH PRIVILEGES;\n" + ACCOUNT


def find_binaries(release: Release) -> Binaries:
    """Find a release's programs in `.servers/` of this checkout, or those that the system has installed.

    Raises:
        NoServerError: neither is there, or the system's have another version.
    """
    for root in (UNPACKED / release.name, SYSTEM):
        if (root / "usr/sbin" / release.program).exists():
            found = Binaries(release, root)
            if found.reported_version().startswith(release.version):
                return found
    raise NoServerError(
        f"no {release.name} on this machine: `make test` says why it could not unpack Debian's packages; "
        f"{release.variable}=mysql://root@host:port/ names a running one instead"
    )


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
