"""On what a run was made: processor, memory, disk, versions."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path


def describe(files: Path, load: float) -> Mapping[str, str]:
    """Return what to say about the machine and the software, in the order in which to say it."""
    packages = ("cdcrep", "duckdb", "psycopg", "pyarrow", "numpy")
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores, shared by source, consumer and target",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GiB",
        # Anything but nearly 0: somebody else was at work, and the figures are too low.
        "load before the run": f"{load:.1f}",
        "data on": _filesystem(files),
        "system": f"{_distribution()}, Linux {platform.release()}",
        "source": _commit(),
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
    }


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _filesystem(directory: Path) -> str:
    """The type of the file system: on tmpfs, fsync costs nothing and the figures mean little."""
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount_point, kind = line.split()[:3]
        if directory.is_relative_to(mount_point) and len(mount_point) >= len(best[0]):
            best = (mount_point, kind)
    return best[1]


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"commit {done.stdout.strip()}" if done.returncode == 0 else "not a git checkout"
