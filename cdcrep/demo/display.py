"""What the demonstration shows: a living line for the step in hand on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

TITLE_WIDTH: Final = 27
OUTCOME_WIDTH: Final = 43


class Step:
    """One step while it runs."""

    def __init__(self, display: Display, title: str, progress: Progress | None, total: float | None) -> None:
        self.outcome = ""
        """What came of it, for the line that stays."""
        self._display, self._progress = display, progress
        self._task = progress.add_task(title, total=total, figures="") if progress else None

    def tell(self, figures: str, *, done: float | None = None, worth_a_line: bool = False) -> None:
        """Show figures in the living line and move its bar to `done`; elsewhere print them if they are worth a line."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, figures=figures)
        elif worth_a_line:
            self._display.line(f"    {figures}")


class Display:
    """The demonstration's console."""

    def __init__(self, console: Console) -> None:
        self.console = console
        # A console that cannot write these would end the demonstration.
        self._is_plain = not console.encoding.lower().startswith("utf")
        self._done = "ok" if self._is_plain else "✓"

    def line(self, text: str = "", style: str = "") -> None:
        """Print a line as it is."""
        self.console.print(Text(text, style=style), soft_wrap=True)

    @contextmanager
    def step(self, title: str, total: float | None = None) -> Iterator[Step]:
        """Show a step while the block runs, and a line with its outcome and duration afterwards."""
        began = time.monotonic()
        if self.console.is_terminal:
            with self._progress() as progress:
                step = Step(self, title, progress, total)
                yield step
        else:
            self.line(f"… {title}" if not self._is_plain else f".. {title}")
            step = Step(self, title, None, total)
            yield step
        seconds = f"{time.monotonic() - began:.1f} s"
        done = Text.assemble(
            (f"{self._done} ", "green"), f"{title:{TITLE_WIDTH}}", (f"{step.outcome:{OUTCOME_WIDTH}} ", "dim"), seconds
        )
        self.console.print(done, soft_wrap=True)

    def _progress(self) -> Progress:
        return Progress(
            SpinnerColumn("line" if self._is_plain else "dots"),
            TextColumn("{task.description:<25}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
