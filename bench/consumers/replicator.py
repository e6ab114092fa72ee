"""cdcrep as a user runs it: `cdcrep run CONFIG`, the smallest configuration file, every default."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from bench.consumers.consumer import Mark, Setting, Window
from bench.consumers.windows import (
    DUCKDB_PAUSE_SECONDS,
    PAUSE_SECONDS,
    DuckDBWindow,
    PostgresWindow,
    wait_for_mark,
)
from bench.servers import Servers
from bench.tables import Contents, Digest, duckdb_digest
from bench.waiting import BenchError, wait_for

Target = Literal["PostgreSQL", "DuckDB"]

STOP_SECONDS: Final = 30.0


def program() -> list[str]:
    """The command line program of the environment that runs the benchmark."""
    return [str(Path(sys.executable).with_name("cdcrep"))]


def write_config(file: Path, name: str, source_url: str, target_url: str, include: Sequence[str]) -> None:
    """Write the smallest configuration file."""
    tables = ", ".join(f'"{table}"' for table in include)
    file.write_text(
        f'name = "{name}"\n[source]\nurl = "{source_url}"\n[target]\nurl = "{target_url}"\n'
        f"[tables]\ninclude = [{tables}]\n"
    )


def log_tail(log: Path) -> str:
    """Why a program ended, in one line: its own words if it says `error:`, else the last lines of its output."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    own_words = [line for line in lines if line.startswith(("error:", "hint:"))]
    return " / ".join(line.strip() for line in (own_words or lines)[-3:])[-500:]


class TargetFiles:
    """Where one pipeline's target, configuration and output are."""

    def __init__(self, servers: Servers, target: Target, database: str) -> None:
        self.target = target
        self.servers = servers
        self.name = f"{database}_{target.lower()}"
        self.config = servers.files / f"{self.name}.toml"
        self.log = servers.files / f"{self.name}.log"
        self.file = servers.files / f"{self.name}.duckdb"

    @property
    def url(self) -> str:
        """The target's URL."""
        return f"duckdb:///{self.file}" if self.target == "DuckDB" else self.servers.target.url(self.name)

    def create(self) -> None:
        """Make an empty target."""
        if self.target == "PostgreSQL":
            self.servers.target.create_database(self.name)

    def digest(self, tables: Sequence[Contents]) -> Digest:
        """Digest the target's tables, which nobody writes."""
        if self.target == "DuckDB":
            return duckdb_digest(self.file, tables)
        return self.servers.target.digest(self.name, tables)

    def settle(self) -> None:
        """Bring the target's statistics up to date, as time would."""
        if self.target == "PostgreSQL":
            self.servers.target.settle(self.name)

    def remove(self) -> None:
        """Delete the target."""
        if self.target == "PostgreSQL":
            self.servers.target.drop_database(self.name)
        for file in self.servers.files.glob(f"{self.file.name}*"):
            file.unlink(missing_ok=True)


class Replicator:
    """One cdcrep process per backlog; its first run copies the tables and ends."""

    def __init__(self, target: Target) -> None:
        self.name = f"cdcrep to {target}"
        self.pause_seconds = DUCKDB_PAUSE_SECONDS if target == "DuckDB" else PAUSE_SECONDS
        self._target: Target = target
        self._process: subprocess.Popen[bytes] | None = None
        self._files: TargetFiles | None = None

    def set_up(self, setting: Setting) -> None:
        files = self._files = TargetFiles(setting.servers, self._target, setting.database)
        self._source = setting.servers.source
        files.create()
        source_url = self._source.url(setting.database)
        write_config(files.config, files.name, source_url, files.url, setting.workload.include)
        slots = self._source.slots(setting.database)
        self._launch("--until-current")
        wait_for(lambda: self._process is None or self._process.poll() is not None, "first copy", seconds=3600)
        self._finish("the first copy")
        created = self._source.slots(setting.database) - slots
        if len(created) > 1:
            raise BenchError(f"the first run left {len(created)} slots instead of one")
        self._slot = next(iter(created), "")
        files.settle()

    def backlog_begins(self) -> None:
        pass

    def start(self, mark: Mark) -> int | None:  # noqa: ARG002 - it goes on for ever
        return self._launch()

    def streaming(self) -> bool:
        self.check_alive()
        return self._source.slot_is_active(self._slot)

    def wait(self, mark: Mark, seconds: float) -> float:
        return wait_for_mark(self, mark, seconds)

    def window(self) -> Window:
        assert self._files
        if self._target == "DuckDB":
            return DuckDBWindow(self._files.config)
        return PostgresWindow(self._files.servers.target, self._files.name)

    def check_alive(self) -> None:
        if self._process and self._process.poll() is not None:
            self._finish("it was to go on")
            raise BenchError("cdcrep ended by itself")

    def stop(self) -> None:
        if not self._process:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._process = None
            raise BenchError(f"cdcrep did not end within {STOP_SECONDS:.0f} s of SIGTERM") from None
        self._finish("SIGTERM")
        self._source.end_stream(self._slot)

    def digest(self, tables: Sequence[Contents]) -> Digest:
        assert self._files
        return self._files.digest(tables)

    def tear_down(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._files:
            self._files.remove()

    def _launch(self, *arguments: str) -> int:
        assert self._files
        with self._files.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*program(), "run", str(self._files.config), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self._process.pid

    def _finish(self, after: str) -> None:
        assert self._process
        assert self._files
        code = self._process.wait()
        self._process = None
        if code != 0:
            raise BenchError(f"cdcrep ended with exit code {code} after {after}: {log_tail(self._files.log)}")
