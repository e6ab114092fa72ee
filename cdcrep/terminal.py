"""What a person sees while a pipeline runs: a progress bar for the first copy, then one living line."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.spinner import Spinner
from rich.text import Text

from cdcrep.errors import CdcrepError
from cdcrep.position import Position
from cdcrep.progress import CopyFigures
from cdcrep.redaction import redact
from cdcrep.table import TableId

RATE_WINDOW_SECONDS: Final = 5.0
MOST_TABLE_BARS: Final = 8

_COLOURS: Final = {"streaming": "green", "retrying": "yellow", "failed": "red", "stopped": "dim"}


class Rate:
    """Rows per second over the last few seconds."""

    def __init__(self, window_seconds: float = RATE_WINDOW_SECONDS) -> None:
        self._window = window_seconds
        self._seen: deque[tuple[float, int]] = deque()
        self._began = time.monotonic()

    def add(self, rows: int) -> None:
        """Count rows now."""
        self._seen.append((time.monotonic(), rows))
        self._forget()

    def per_second(self) -> float:
        """Return the present rate; 0 when nothing came for the length of the window."""
        self._forget()
        span = min(self._window, max(time.monotonic() - self._began, 0.1))
        return sum(rows for _, rows in tuple(self._seen)) / span

    def _forget(self) -> None:
        horizon = time.monotonic() - self._window
        while self._seen and self._seen[0][0] < horizon:
            self._seen.popleft()


class TerminalProgress:
    """Shows events on a terminal; lines printed to the same console stand above the living part."""

    def __init__(self, pipeline: str, console: Console) -> None:
        self._pipeline, self._console = pipeline, console
        self._lock = threading.Lock()
        self._state = "starting"
        self._rows = self._transactions = 0
        self._rate = Rate()
        self._lag: float | None = None
        self._retry = ""
        self._copy: CopyFigures | None = None
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
        )
        self._tasks: dict[TableId | None, TaskID] = {}
        self._done: dict[TableId | None, tuple[int, int]] = {}
        self._spinner = Spinner("dots")
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=5, transient=True)

    def __enter__(self) -> Self:
        """Start the living part."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the living part and leave a sum behind."""
        self._live.stop()
        if self._transactions:
            self._print(f"{self._pipeline}: applied {self._rows:,} changes of {self._transactions:,} transactions")

    def state(self, state: str) -> None:
        """Change the living line."""
        self._state = state
        if state != "retrying":
            self._retry = ""

    def note(self, message: str) -> None:
        """Print it above the living line."""
        self._print(f"{self._pipeline}: {message}")

    def copy_started(self, tables: Mapping[TableId, tuple[int, int]]) -> None:
        """Show a bar for all tables, and one for each unless they are many."""
        with self._lock:
            for task in self._bars.task_ids:
                self._bars.remove_task(task)
            self._copy = CopyFigures(tables)
            rows, size = (sum(estimate[i] for estimate in tables.values()) for i in (0, 1))
            self._by_rows = rows > 0
            self._tasks = {None: self._bars.add_task(f"{len(tables)} tables", total=rows or size or None, figures="")}
            self._done = {None: (0, 0)}
            if 1 < len(tables) <= MOST_TABLE_BARS:
                for table, (table_rows, table_size) in tables.items():
                    total = (table_rows if self._by_rows else table_size) or None
                    self._tasks[table] = self._bars.add_task(f"  {table}", total=total, figures="")
                    self._done[table] = (0, 0)

    def copy_progress(self, table: TableId, rows: int, size: int) -> None:
        """Move the bars."""
        with self._lock:
            for key in (None, table):
                if key not in self._tasks:
                    continue
                all_rows, all_size = self._done[key][0] + rows, self._done[key][1] + size
                self._done[key] = (all_rows, all_size)
                figures = f"{all_rows:,} rows {decimal(all_size)}"
                self._bars.update(self._tasks[key], completed=all_rows if self._by_rows else all_size, figures=figures)

    def copy_finished(self) -> None:
        """Replace the bars by one line."""
        with self._lock:
            copy, self._copy = self._copy, None
            rows, size = self._done.get(None, (0, 0))
        if copy is not None:
            seconds = max(time.monotonic() - copy.began, 1e-3)
            self._print(
                f"{self._pipeline}: copied {rows:,} rows, {decimal(size)}, of {len(copy.estimates)} tables "
                f"in {seconds:.1f} s ({rows / seconds:,.0f} rows/s)"
            )

    def applied(
        self,
        rows: int,
        transactions: int,
        position: Position | None,
        commit_time: float | None,
        seconds: float,  # noqa: ARG002 - the protocol's; the rate says more to a person
    ) -> None:
        """Count in the living line."""
        self._rows += rows
        self._transactions += transactions
        self._rate.add(rows)
        is_heartbeat = position is not None and not transactions
        self._lag = 0.0 if is_heartbeat else self._lag if commit_time is None else max(0.0, time.time() - commit_time)

    def retry(self, error: CdcrepError, attempt: int, wait_seconds: float) -> None:
        """Print the failure; the living line says when it goes on."""
        self._print(f"{self._pipeline}: {error.message}", style="yellow")
        self._retry = f"attempt {attempt}, again in {wait_seconds:.1f} s"

    def _render(self) -> RenderableType:
        if self._copy is not None and self._state == "snapshotting":
            return self._bars
        parts = [f"{self._transactions:,} transactions", f"{self._rows:,} changes"]
        rate = self._rate.per_second()
        if rate:
            parts.append(f"{rate:,.0f}/s")
            if self._lag is not None:
                parts.append(f"{self._lag:.2f} s behind")
        if self._retry:
            parts.append(self._retry)
        line = Text.assemble(
            f"{self._pipeline} ", (self._state, _COLOURS.get(self._state, "cyan")), "  " + "  ".join(parts)
        )
        self._spinner.update(text=line)
        rendered = self._spinner.render(self._console.get_time())
        if isinstance(rendered, Text):
            rendered.no_wrap, rendered.overflow = True, "ellipsis"
        return rendered

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(redact(text), style=style), soft_wrap=True)
