"""Unpacks packages of any Debian release, with the libraries they need, into a folder of their own.

Nothing of the system is touched: apt works on lists and a status file in a scratch folder, so an ordinary user can do
it, and what is unpacked brings its own C library and loader, so the packages need not fit the system. apt verifies the
mirror's signed Release file and, by its checksums, every index and package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

DEFAULT_MIRROR: Final = "http://deb.debian.org/debian"
KEYRINGS: Final = ("/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg")
TOOLS: Final = ("apt-get", "apt-cache", "apt-config", "dpkg", "dpkg-deb")

ATTEMPTS: Final = 3
COMMAND_SECONDS: Final = 180.0

LIBRARY: Final = re.compile(r"lib(?!perl|pam|audit|selinux|semanage|sepol|c-gconv|.*-perl$)|zlib1g")
"""What a program may load. The rest of what packages depend on serves their installation."""

UNUSED: Final = ("doc", "man", "info", "lintian", "bug", "gdb", "gcc", "locale")

SOURCES: Final = """\
Types: deb
URIs: {mirror}
Suites: {suite}
Components: main
Signed-By: {keyring}
"""

CONFIGURATION: Final = """\
{acquire}
Dir::Etc::sourcelist "{scratch}/sources.sources";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::main "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{scratch}/state";
Dir::State::status "{scratch}/status";
Dir::Cache "{scratch}/cache";
Dir::Log "{scratch}";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::GzipIndexes "false";
Acquire::Retries "3";
Acquire::http::Timeout "30";
// A mirror may be frozen at a day of the past; its signature is verified all the same.
Acquire::Check-Valid-Until "false";
pkgCacheGen::Essential "none";
pkgCacheGen::ForceEssential ",";
Debug::NoLocking "true";
"""


class NotInstallableError(Exception):
    """These packages cannot be had on this machine; the message says why."""


def unpack(suite: str, packages: Sequence[str], version: str, directory: Path) -> None:
    """Unpack the packages, the first of which must have a version that begins with `version`, into `directory`.

    The folder holds `usr` and the like afterwards, and `packages.txt`, a list of their names with versions. It appears
    when it is complete. With `libeatmydata1` among the packages, `loader_command` can make programs skip fsync.

    Raises:
        NotInstallableError: no Debian tools, no mirror answered, or the suite has another version by now.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    keyring = next((path for path in KEYRINGS if Path(path).is_file()), None)
    if missing or keyring is None:
        raise NotInstallableError(f"this needs {', '.join(missing) or 'the package debian-archive-keyring'}")
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Unpacked beside its place and renamed: an interrupted installation leaves no half a server.
    with tempfile.TemporaryDirectory(dir=directory.parent) as folder:
        scratch = Path(folder).resolve()
        archives = _download(scratch, suite, keyring, packages, version)
        tree = scratch / "tree"
        for archive in archives:
            _run(["dpkg-deb", "--extract", str(archive), str(tree)], scratch)
        for name in UNUSED:
            shutil.rmtree(tree / "usr/share" / name, ignore_errors=True)
        tree.chmod(0o755)
        (tree / "packages.txt").write_text("".join(f"{archive.name}\n" for archive in archives))
        shutil.rmtree(directory, ignore_errors=True)
        tree.rename(directory)


@cache
def mirrors() -> list[str]:
    """Return the Debian mirrors that the machine's own apt uses, or else Debian's own."""
    # Third parties offer suites of Debian's names: only an archive with "debian" in its path can be one.
    listed = _output(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    )
    targets = (line.split() for line in listed.splitlines())
    found = [uri for uri, suite, component in targets if component == "main" and not suite.endswith("-security")]
    usable = [uri for uri in found if re.search(r"/debian(/|$)", uri) and uri.startswith(("http", "mirror"))]
    return list(dict.fromkeys(usable)) or [DEFAULT_MIRROR]


def _download(scratch: Path, suite: str, keyring: str, packages: Sequence[str], version: str) -> list[Path]:
    """Fetch the packages and the libraries they need from the first mirror that has them."""
    for folder in ("state/lists/partial", "cache/archives/partial", "debs"):
        (scratch / folder).mkdir(parents=True)
    (scratch / "status").touch()
    # Proxies and the like of the machine.
    acquire = "\n".join(line for line in _output(["apt-config", "dump", "Acquire"]).splitlines() if '""' not in line)
    (scratch / "apt.conf").write_text(CONFIGURATION.format(acquire=acquire, scratch=scratch))
    reasons = []
    for mirror in mirrors() * ATTEMPTS:
        (scratch / "sources.sources").write_text(SOURCES.format(mirror=mirror, suite=suite, keyring=keyring))
        try:
            _run(["apt-get", "--quiet=2", "--error-on=any", "update"], scratch)
            names = _needed(scratch, suite, packages, version)
            _run(["apt-get", "--quiet=2", "download", *names], scratch, cwd=scratch / "debs")
        except NotInstallableError as error:
            reasons.append(f"{error} ({mirror})")
        else:
            return sorted((scratch / "debs").iterdir())
    raise NotInstallableError("; ".join(dict.fromkeys(reasons)))


def _needed(scratch: Path, suite: str, packages: Sequence[str], version: str) -> list[str]:
    """Return the names of the packages and of the libraries that they need."""
    offered = _run(["apt-cache", "madison", packages[0]], scratch).split("|")
    found = offered[1].strip().rpartition(":")[2] if len(offered) > 1 else "none"
    if not found.startswith(version):
        raise NotInstallableError(f"Debian {suite} has version {found} of {packages[0]} by now, not {version}x")
    # Not `apt-get --simulate install`, whose solver takes ten times as long to find the same libraries.
    answer = _run(["apt-cache", "depends", "--recurse", "--important", *packages], scratch)
    names = (line for line in answer.splitlines() if line and line[0] not in " |<")
    return [name for name in names if name in packages or LIBRARY.match(name)]


def _run(command: list[str], scratch: Path, cwd: Path | None = None) -> str:
    """Run a tool with the scratch folder's configuration and return what it printed."""
    return _output(command, {"APT_CONFIG": str(scratch / "apt.conf")}, cwd)


def _output(command: list[str], variables: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C", **(variables or {})}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=COMMAND_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotInstallableError(f"{command[0]} took longer than {COMMAND_SECONDS} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"{command[0]} failed with exit code {done.returncode}"]
        raise NotInstallableError(" ".join(lines[-3:]))
    return done.stdout
