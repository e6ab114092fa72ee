"""What a running pipeline tells the person or the program that watches it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cdcrep.errors import CdcrepError
from cdcrep.position import Position
from cdcrep.table import TableId


class Events(Protocol):
    """Listener of one pipeline. Called from any thread, often; never raises, never waits."""

    def state(self, state: str) -> None:
        """Learn the state that was entered; a member of `supervise.State`."""

    def note(self, message: str) -> None:
        """Learn of something that was done once: a table created, a slot dropped."""

    def copy_started(self, tables: Mapping[TableId, tuple[int, int]]) -> None:
        """Learn what the first copy still has to carry: table -> rows and bytes, both estimates."""

    def copy_progress(self, table: TableId, rows: int, size: int) -> None:
        """Learn of rows and bytes that are durable in the target in addition to those told before."""

    def copy_finished(self) -> None:
        """Learn that every table is complete."""

    def applied(
        self, rows: int, transactions: int, position: Position | None, commit_time: float | None, seconds: float
    ) -> None:
        """Learn of a batch that is durable in the target and of the seconds that applying it took.

        A heartbeat has neither rows nor transactions: the target then equals the source as of now.
        """

    def retry(self, error: CdcrepError, attempt: int, wait_seconds: float) -> None:
        """Learn of a failure after which everything is opened again in `wait_seconds`."""
