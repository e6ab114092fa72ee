"""Consumers that read one backlog, keep nothing, and are programs of their own: each prints what it found."""

from __future__ import annotations

import select
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence

from bench.consumers.consumer import Mark, Window
from bench.servers import Server
from bench.tables import Contents, Digest
from bench.waiting import BenchError


class Reader(ABC):
    """Runs a program that prints `count time` when the mark has gone by (`time.monotonic`), and lingers."""

    name: str
    pause_seconds = 0.0
    slot = ""

    def __init__(self, source: Server) -> None:
        self._source = source
        self._process: subprocess.Popen[str] | None = None

    @abstractmethod
    def command(self, mark: Mark) -> Sequence[str]:
        """The program that reads the backlog that ends with a mark."""

    @abstractmethod
    def check(self, count: int) -> None:
        """Raise BenchError if this cannot be what was in the backlog."""

    def start(self, mark: Mark) -> int | None:
        self._process = subprocess.Popen(
            self.command(mark), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return self._process.pid

    def streaming(self) -> bool:
        self.check_alive()
        return self._source.slot_is_active(self.slot)

    def check_alive(self) -> None:
        if self._process and self._process.poll() is not None:
            raise BenchError(f"{self.name} ended: {self._process.communicate()[1].strip().splitlines()[-1:]}")

    def wait(self, mark: Mark, seconds: float) -> float:  # noqa: ARG002 - the mark is in its arguments
        assert self._process
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            raise BenchError(f"the end of the backlog did not arrive within {seconds:.0f} s")
        line = self._process.stdout.readline().split()
        if not line:
            self._process.wait()
            self.check_alive()
        count, ended = line
        self.check(int(count))
        return float(ended)

    def window(self) -> Window | None:
        return None

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None
            self._source.end_stream(self.slot)

    def digest(self, tables: Sequence[Contents]) -> Digest | None:  # noqa: ARG002 - nothing is kept
        return None

    def tear_down(self) -> None:
        if self._process:
            self.stop()
