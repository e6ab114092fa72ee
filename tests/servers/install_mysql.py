"""Unpacks MySQL and MariaDB from Debian's packages into `.servers/mysql/`, for the test matrix.

Run by `make test` and `make demo SOURCE=mysql`: `python -m tests.servers.install_mysql DIRECTORY`. Needs nothing but
the standard library and the tools of a Debian system. Writes `DIRECTORY/.installed` when every release is there; one
that cannot be had is named and left out, since a Docker engine may take its place (a release still missing fails the
tests in CI).
"""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.servers.debian_packages import NotInstallableError, unpack
from tests.servers.mysql_binaries import RELEASES, NoServerError, Release, binaries_of

LARGE_AND_UNUSED = (
    "usr/bin/ibd2sdi",
    "usr/bin/mysql_migrate_keyring",
    "usr/lib/mysql/plugin/telemetry_client.so",
    "usr/lib/mysql/plugin/group_replication.so",
    "usr/lib/mysql/plugin/component_telemetry.so",
)


def install(release: Release, directory: Path) -> None:
    """Unpack one release into `directory/NAME` and initialise a data directory for servers to copy.

    Raises:
        NotInstallableError, NoServerError: it cannot be had, or does not run, on this machine.
    """
    binaries = binaries_of(release, directory / release.name)
    if not (binaries.root / "packages.txt").exists():
        unpack(release.suite, release.packages, release.version, binaries.root)
        for name in LARGE_AND_UNUSED:
            (binaries.root / name).unlink(missing_ok=True)
    if not binaries.reported_version():
        shutil.rmtree(binaries.root)
        raise NoServerError("what was unpacked does not run on this machine")
    binaries.create_template()


def main(directory: Path) -> None:
    """Install every release and say which could not be had."""

    def reason_against(release: Release) -> str:
        try:
            install(release, directory)
        except (NotInstallableError, NoServerError) as error:
            return f"{release.name} not installed from Debian's packages: {error}\n"
        return ""

    directory.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(len(RELEASES)) as side_by_side:
        reasons = list(side_by_side.map(reason_against, RELEASES.values()))
    sys.stderr.write("".join(reasons))
    if not any(reasons):
        (directory / ".installed").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
