"""The raw receive limit: the server's own sending speed to a reader that decodes and writes nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from bench.consumers.consumer import Mark, Setting, Window
from bench.tables import Contents, Digest
from bench.waiting import BenchError

SLOT: Final = "bench_raw"


class RawReceive:
    """Empties a slot's socket, rests, and empties it again: what is cheapest for the server."""

    name = "raw receive"
    pause_seconds = 0.0

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def set_up(self, setting: Setting) -> None:
        self._source, self._database = setting.clusters.source, setting.database
        self._source.execute(
            self._database, f"CREATE PUBLICATION {SLOT} FOR TABLE {', '.join(setting.workload.include)}"
        )

    def backlog_begins(self) -> None:
        # A slot that never confirms starts over each time: a new one for each backlog.
        self._source.execute(
            self._database,
            f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{SLOT}'",
            f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')",
        )

    def start(self, mark: Mark) -> int | None:
        command = [sys.executable, "-m", "bench.consumers.receiver"]
        arguments = [self._source.dsn(self._database), SLOT, SLOT, mark.token]
        self._process = subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return self._process.pid

    def streaming(self) -> bool:
        return self._source.slot_is_active(SLOT)

    def check_alive(self) -> None:
        if self._process and self._process.poll() is not None:
            raise BenchError(f"the raw receiver ended: {self._process.communicate()[1].strip().splitlines()[-1:]}")

    def wait(self, mark: Mark, seconds: float) -> float:  # noqa: ARG002 - the mark is in its arguments
        assert self._process
        try:
            output, errors = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise BenchError(f"the end of the backlog did not arrive within {seconds:.0f} s") from None
        if self._process.returncode != 0:
            raise BenchError(f"the raw receiver failed: {errors.strip().splitlines()[-1:]}")
        return float(output.split()[1])

    def window(self) -> Window | None:
        return None

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def digest(self, tables: Sequence[Contents]) -> Digest | None:  # noqa: ARG002 - nothing is kept
        return None

    def tear_down(self) -> None:
        self.stop()
