"""Commands on a pipeline's configuration as child processes: run to their end, or kept running beside a test."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cdcrep_connectors.postgres.lsn import parse_lsn
from tests.crash.observer import select
from tests.crash.pipeline import PROGRAM, Pipeline, wait_for_end
from tests.servers.database import Database
from tests.servers.waiting import DEADLINE_SECONDS, wait_until

STUBBORN = ("--set", "max_retries=1000")
"""Arguments of a run that outlasts every outage of a test."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    output: str
    """Standard output and standard error."""


@dataclass(frozen=True)
class Running:
    """A `cdcrep run` beside the test."""

    pipeline: Pipeline[Any]
    process: subprocess.Popen[bytes]
    log_start: int

    @property
    def logged(self) -> str:
        """What it has printed so far."""
        return self.pipeline.log.read_bytes()[self.log_start :].decode(errors="replace")

    def until(self, condition: Callable[[], object], what: str, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until a condition holds; fail at once if the process ends before."""

        def holds() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.returncode}\n{self.logged[-4000:]}"
            return bool(condition())

        try:
            wait_until(holds, deadline_seconds, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logged[-4000:]}") from None

    def wait_for(self, text: str) -> None:
        """Wait until it has printed a text."""
        self.until(lambda: text in self.logged, f"{text!r} in the log")

    def wait_for_progress(self) -> None:
        """Wait until everything that is committed now is confirmed, while something keeps writing.

        A source that is told nothing of that: until it is in the target, which others must be able to read.
        """
        pipeline = self.pipeline
        if isinstance(pipeline.source, Database):
            goal = newest(pipeline)
            self.until(lambda: confirmed(pipeline) >= goal, "progress at the source")
        else:
            query = f"SELECT count(*) FROM {pipeline.schema}.ledger"
            rows = select(pipeline.source.url, query)
            self.until(lambda: select(pipeline.target_url, query) >= rows, "progress in the target")

    def ended(self, deadline_seconds: float = DEADLINE_SECONDS) -> int:
        """Wait until it has ended; return the exit status."""
        return wait_for_end(self.process, deadline_seconds, lambda: self.logged[-4000:])

    def run_on(self, seconds: float) -> None:
        """Let it run for a while; fail if it ends."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(timeout=seconds)
            raise AssertionError(f"ended with {code}\n{self.logged[-4000:]}")


def command(pipeline: Pipeline[Any], *words: str, deadline: float = DEADLINE_SECONDS, **environment: str) -> Ended:
    """Run a command to its end: `command(pipeline, "run", "--until-current")`."""
    name, *arguments = words
    done = subprocess.run(
        [*PROGRAM, name, str(pipeline.config), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=deadline,
        check=False,
        env={**os.environ, "CDCREP_RUNTIME_DIR": str(pipeline.config.parent), **environment},
    )
    return Ended(done.returncode, done.stdout)


@contextlib.contextmanager
def running(pipeline: Pipeline[Any], *arguments: str, **environment: str) -> Iterator[Running]:
    """Keep a `cdcrep run` beside the block; whatever is left of it afterwards is killed."""
    log_start = pipeline.log.stat().st_size if pipeline.log.exists() else 0
    process = pipeline.start(*arguments, **environment)
    try:
        yield Running(pipeline, process, log_start)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def confirmed(pipeline: Pipeline) -> int:
    """Return the slot's confirmed position; 0: there is none."""
    rows = pipeline.source.execute(
        "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = current_database() "
        "AND NOT temporary AND confirmed_flush_lsn IS NOT NULL"
    )
    return parse_lsn(rows[0][0]) if rows else 0


def newest(pipeline: Pipeline) -> int:
    """Return the source's present position in its log."""
    return parse_lsn(pipeline.source.execute("SELECT pg_current_wal_lsn()::text")[0][0])
