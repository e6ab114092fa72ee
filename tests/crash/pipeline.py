"""Runs the real command line as a child process, kills it, and compares what it left behind with the source."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from typing_extensions import TypeVar

from cdcrep.config import load
from cdcrep.progress import LogLines
from cdcrep.supervise import Supervisor
from tests.crash.observer import Rows, rows_at
from tests.crash.workload_sessions import TABLES, SourceDatabase
from tests.servers.database import Database
from tests.servers.waiting import DEADLINE_SECONDS

PROGRAM = (sys.executable, "-m", "cdcrep.testing.crash", "--")
PATIENT = ("--set", "max_retries=20")
"""Arguments of a run that writers may make begin its copy again and again, by emptying tables and by holding locks."""

PRINTING_SECONDS = 2.0
"""For which a process that should have ended may print where its threads stand."""

NO_COVERAGE = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}
"""Environment of a child that is killed before it could say what it reached, or whose time or memory is judged."""


Source = TypeVar("Source", bound=SourceDatabase, default=Database)


@dataclass
class Pipeline(Generic[Source]):
    """One configuration, started and killed again and again."""

    config: Path
    log: Path
    source: Source
    target_url: str
    schema: str

    @classmethod
    def create(
        cls,
        directory: Path,
        source: Source,
        target_url: str,
        tables: tuple[str, ...] = TABLES,
        schema: str | None = None,
    ) -> Pipeline[Source]:
        """Write a configuration file into a directory. Without `schema` the tables are where statements look for them.

        That is `public` in PostgreSQL; MySQL has no schemas but the databases.
        """
        config = directory / "pipeline.toml"
        schema = schema or ("public" if isinstance(source, Database) else source.name)
        include = ", ".join(f'"{schema}.{table}"' for table in tables)
        config.write_text(
            f'name = "{source.name}"\n[source]\nurl = "{source.url}"\n[target]\nurl = "{target_url}"\n'
            f"[tables]\ninclude = [{include}]\n"
        )
        return cls(config, directory / "log", source, target_url, schema)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start `cdcrep run` with the crash points and broken builds that `environment` asks for."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*PROGRAM, "run", str(self.config), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment_with(**{**NO_COVERAGE, "CDCREP_RUNTIME_DIR": str(self.config.parent), **environment}),
            )

    def catch_up(self) -> None:
        """Replicate what was committed so far, in this process."""
        Supervisor(load(self.config), events=LogLines("catching up"), until_current=True).run()

    def kill_at_random(self, rng: random.Random, *, longest: float = 1.5) -> int:
        """Start, let run for a random time, SIGKILL; return the exit status (negative: the signal)."""
        process = self.start(*PATIENT)
        try:
            return process.wait(timeout=0.1 + rng.random() * longest)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return process.wait()

    def kill_at_point(self, name: str, count: int, *, broken: str = "", deadline: float = DEADLINE_SECONDS) -> bool:
        """Start with a crash point armed; tell whether it was reached before the deadline."""
        process = self.start(*PATIENT, CDCREP_CRASH_AT=f"{name}:{count}", CDCREP_BROKEN=broken)
        try:
            return process.wait(timeout=deadline) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False

    def finish(self, *, broken: str = "", deadline: float = DEADLINE_SECONDS) -> int:
        """Run until current; return the exit status."""
        process = self.start("--until-current", CDCREP_BROKEN=broken)
        return wait_for_end(process, deadline, self.tail)

    def tail(self) -> str:
        """Return the end of what the processes printed."""
        return self.log.read_text(errors="replace")[-4000:]

    def source_rows(self, table: str) -> Rows:
        """Read a source table as sorted rows of text."""
        return rows_at(self.source.url, self.schema, table)

    def target_rows(self, table: str) -> Rows:
        """Read a target table as sorted rows of text."""
        return rows_at(self.target_url, self.schema, table)

    def assert_equal(self) -> None:
        """Compare every table row by row."""
        for table in TABLES:
            source, target = self.source_rows(table), self.target_rows(table)
            assert source == target, (
                f"{table}: {len(set(source) - set(target))} rows are missing or old, "
                f"{len(set(target) - set(source))} should not be there: {len(source)} against {len(target)} rows\n"
                f"{self.tail()}"
            )


def wait_for_end(process: subprocess.Popen[bytes], deadline: float, tail: Callable[[], str]) -> int:
    """Return the exit status of a process; one that does not end in time says where its threads stand, and is killed.

    Args:
        tail: reads the end of what it has printed.
    """
    try:
        return process.wait(timeout=deadline)
    except subprocess.TimeoutExpired:
        before = tail()
        process.send_signal(signal.SIGUSR1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=PRINTING_SECONDS)
        process.kill()
        process.wait()
        raise AssertionError(f"has not ended after {deadline} s\n{before}\n{tail()}") from None


def environment_with(**changes: str) -> dict[str, str]:
    """Return this process's environment with changes; an empty value takes a name out."""
    return {name: value for name, value in {**os.environ, **changes}.items() if value}
