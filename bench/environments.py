"""Virtual environments of their own for competitors whose packages do not go with ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.waiting import BenchError

# `make clean` deletes it, git ignores it.
DIRECTORY: Final = Path(__file__).resolve().parents[1] / ".servers" / "competitors"

SCANNER: Final = ("duckdb==1.5.5", "duckdb-extension-postgres-scanner==1.5.5")
CONNECTORX: Final = ("connectorx==0.4.6", "duckdb==2.0.0", "pyarrow>=18")
MYSQL_REPLICATION: Final = ("mysql-replication==1.0.17", "pymysql==1.2.0")
PYMYSQL: Final = ("pymysql==1.2.0", "duckdb==2.0.0", "pyarrow>=18")


def python_with(name: str, packages: Sequence[str]) -> Path:
    """Create the environment if it is not there; return its Python.

    Raises:
        BenchError: a package could not be installed.
    """
    environment = DIRECTORY / name
    python, installed = environment / "bin" / "python", environment / ".installed"
    if installed.exists() and installed.read_text() == " ".join(packages):
        return python
    commands: list[list[str]] = [
        [sys.executable, "-m", "venv", "--clear", str(environment)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"the environment {name} could not be made: {done.stderr.strip().splitlines()[-1:]}")
    installed.write_text(" ".join(packages))
    return python
