"""What the measurements ask of every consumer of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.servers import Servers
from bench.tables import Contents, Digest
from bench.workloads import Workload


@dataclass(frozen=True)
class Mark:
    """The last transaction of a backlog: whoever shows it has everything before it."""

    number: int
    token: str
    """Occurs in the row of `mark` with this number and nowhere else."""
    table: str = "public.mark"
    """The table `mark`, with its schema."""


@dataclass(frozen=True)
class Setting:
    """Where a measurement takes place."""

    servers: Servers
    workload: Workload
    database: str
    """The source database, whose tables exist and are filled."""


class Window(Protocol):
    """A look into a running consumer's target."""

    def number(self, sql: str) -> int:
        """Answer a query for one number, with what is visible to any reader now."""
        ...

    def close(self) -> None:
        """Stop looking."""
        ...


class Consumer(Protocol):
    """Follows one source database from a place of its own in the log.

    Call order: `set_up`, then any number of times `start`, `wait_until_streaming`, (wait for the mark), `stop`.
    """

    name: str
    pause_seconds: float
    """Between two looks at the target; part of a latency's error."""

    def set_up(self, setting: Setting) -> None:
        """Bring the target up to date with the tables as they are, and stop."""
        ...

    def backlog_begins(self) -> None:
        """The next backlog is about to be written: all of it must be received from here on."""
        ...

    def start(self, mark: Mark) -> int | None:
        """Start consuming; returns the process id where the consumer is a process of its own."""
        ...

    def streaming(self) -> bool:
        """Has the server begun to send?"""
        ...

    def check_alive(self) -> None:
        """Raise BenchError if it has ended by itself."""
        ...

    def wait(self, mark: Mark, seconds: float) -> float:
        """Wait until the mark is visible in the target; returns when that was (`time.monotonic`)."""
        ...

    def window(self) -> Window | None:
        """Open a look into the target; None where there is no target."""
        ...

    def stop(self) -> None:
        """Stop consuming, in the orderly way, and wait for the end."""
        ...

    def digest(self, tables: Sequence[Contents]) -> Digest | None:
        """Digest the target's tables, while stopped; None where there is no target."""
        ...

    def tear_down(self) -> None:
        """Leave nothing running."""
        ...
