"""Runs the real command line as a child process, kills it, and compares what it left behind with the source."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psycopg
from psycopg import sql

from cdcrep.config import load
from cdcrep.progress import LogLines
from cdcrep.supervise import Supervisor
from tests.crash.workload import TABLES
from tests.servers.database import Database
from tests.servers.waiting import DEADLINE_SECONDS

PROGRAM = (sys.executable, "-m", "cdcrep.testing.crash", "--")
NO_COVERAGE = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}
"""Environment of a child that is killed before it could say what it reached, or whose time or memory is judged."""


@dataclass
class Pipeline:
    """One configuration, started and killed again and again."""

    config: Path
    log: Path
    source: Database
    target_url: str

    @classmethod
    def create(cls, directory: Path, source: Database, target_url: str, tables: tuple[str, ...] = TABLES) -> Pipeline:
        """Write a configuration file into a directory."""
        config = directory / "pipeline.toml"
        include = ", ".join(f'"public.{table}"' for table in tables)
        config.write_text(
            f'name = "{source.name}"\n[source]\nurl = "{source.url}"\n[target]\nurl = "{target_url}"\n'
            f"[tables]\ninclude = [{include}]\n"
        )
        return cls(config, directory / "log", source, target_url)

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
        process = self.start()
        try:
            return process.wait(timeout=0.1 + rng.random() * longest)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return process.wait()

    def kill_at_point(self, name: str, count: int, *, broken: str = "", deadline: float = DEADLINE_SECONDS) -> bool:
        """Start with a crash point armed; tell whether it was reached before the deadline."""
        process = self.start(CDCREP_CRASH_AT=f"{name}:{count}", CDCREP_BROKEN=broken)
        try:
            return process.wait(timeout=deadline) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False

    def finish(self, *, broken: str = "", deadline: float = DEADLINE_SECONDS) -> int:
        """Run until current; return the exit status."""
        process = self.start("--until-current", CDCREP_BROKEN=broken)
        try:
            return process.wait(timeout=deadline)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"not current after {deadline} s\n{self.tail()}") from None

    def tail(self) -> str:
        """Return the end of what the processes printed."""
        return self.log.read_text(errors="replace")[-4000:]

    def source_rows(self, table: str) -> list[tuple[Any, ...]]:
        """Read a source table as sorted rows of text."""
        with self.source.connect() as connection:
            return rows_of(connection, table)

    def target_rows(self, table: str) -> list[tuple[Any, ...]]:
        """Read a target table as sorted rows of text."""
        if self.target_url.startswith("duckdb:"):
            with duckdb.connect(self.target_url.removeprefix("duckdb:///"), read_only=True) as connection:
                rows = connection.execute(f'SELECT COLUMNS(*)::VARCHAR FROM public."{table}"').fetchall()
                return sorted(rows, key=str)
        with psycopg.connect(self.target_url) as connection:
            return rows_of(connection, table)

    def assert_equal(self) -> None:
        """Compare every table row by row."""
        for table in TABLES:
            source, target = self.source_rows(table), self.target_rows(table)
            assert source == target, (
                f"{table}: {len(set(source) - set(target))} rows are missing or old, "
                f"{len(set(target) - set(source))} should not be there: {len(source)} against {len(target)} rows\n"
                f"{self.tail()}"
            )


def environment_with(**changes: str) -> dict[str, str]:
    """Return this process's environment with changes; an empty value takes a name out."""
    return {name: value for name, value in {**os.environ, **changes}.items() if value}


def rows_of(connection: psycopg.Connection[Any], table: str) -> list[tuple[Any, ...]]:
    """Read a table with every value as text."""
    cursor = connection.execute(sql.SQL("SELECT * FROM public.{} LIMIT 0").format(sql.Identifier(table)))
    names = [column.name for column in cursor.description or ()]
    columns = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in names)
    rows = connection.execute(sql.SQL("SELECT {} FROM public.{}").format(columns, sql.Identifier(table))).fetchall()
    return sorted(rows, key=str)
