"""The releases of MySQL and MariaDB that tests run on, their programs, and data directories to copy."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from cdcrep.demo.mysql_programs import SYSTEM, Programs, home_directory, unprivileged
from cdcrep.errors import SetupError

UNPACKED: Final = Path(__file__).resolve().parents[2] / ".servers/mysql"


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
    def variable(self) -> str:
        """The environment variable that names a running server of this version."""
        return "CDCREP_TEST_" + re.sub(r"\W", "_", self.name).upper()


NO_SYNC: Final = "libeatmydata1"
MARIADB_PACKAGES: Final = ("mariadb-server-core", "mariadb-client-core", NO_SYNC)

RELEASES: Final = {
    release.name: release
    for release in (
        Release("mysql-9.7", "sid", ("mysql-server-core", NO_SYNC), "mysql:9.7"),
        Release("mariadb-10.11", "bookworm", MARIADB_PACKAGES, "mariadb:10.11"),
        Release("mariadb-11.8", "trixie", MARIADB_PACKAGES, "mariadb:11.8"),
    )
}


NoServerError = SetupError
"""A server cannot be found, or did not start; the message says why and what to do."""


@dataclass(frozen=True)
class Binaries(Programs):
    """A server's program with its files: unpacked below `root`, or the system's (`root` is `/`)."""

    # Tests crash servers, not machines: without fsync statements on tables take a fraction of their time.
    syncs: ClassVar[bool] = False

    release: Release

    @property
    def template(self) -> Path:
        """A data directory to copy instead of initialising one, where there is one."""
        return self.root / "data-template"

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


def binaries_of(release: Release, root: Path) -> Binaries:
    """Return a release's programs below `root`, whether they are there or not."""
    return Binaries(root, release.is_mariadb, release)


def find_binaries(release: Release) -> Binaries:
    """Find a release's programs in `.servers/` of this checkout, or those that the system has installed.

    Raises:
        NoServerError: neither is there, or the system's have another version.
    """
    for root in (UNPACKED / release.name, SYSTEM):
        found = binaries_of(release, root)
        if (root / found.program).exists() and found.reported_version().startswith(release.version):
            return found
    raise NoServerError(
        f"no {release.name} on this machine: `make test` says why it could not unpack Debian's packages; "
        f"{release.variable}=mysql://root@host:port/ names a running one instead"
    )
