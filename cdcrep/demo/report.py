"""The end of the demonstration: what was measured and found, and how to look at the copy."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

from rich.table import Table
from rich.text import Text

from cdcrep.demo.display import Display
from cdcrep.demo.files import Files
from cdcrep.demo.judge import Verdict
from cdcrep.demo.scenes import Figures
from cdcrep.demo.shop import HISTORY

QUESTION: Final = "SELECT state, count(*) FROM shop.orders GROUP BY state"


def report(display: Display, figures: Figures, verdict: Verdict, copy: Path) -> None:
    """Print the table of results, every complaint, and how to query the copy."""
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for name, value, remark in _results(figures, verdict):
        table.add_row(name, value, Text(remark))
    display.line()
    display.console.print(table)
    display.line()
    for complaint in verdict.complaints:
        display.line(complaint, style="bold red")
    if verdict.complaints:
        display.line("The copy is NOT equal to the source: please report this, with demo.log.", style="bold red")
    path = shlex.quote(_short(copy))
    display.line("The copy is an ordinary DuckDB file:")
    if shutil.which("duckdb"):
        display.line(f'  duckdb -readonly {path} "{QUESTION}"')
    script = f"import duckdb; duckdb.connect({_short(copy)!r}, read_only=True).sql('{QUESTION}').show()"
    display.line(f"  {shlex.quote(_short(Path(sys.executable)))} -c {_quoted(script)}")


def report_kept(display: Display, files: Files, prompt: str) -> None:
    """Print how to play with what is left running, and how to stop it."""
    installed = Path(sys.executable).with_name("cdcrep")
    program = shlex.quote(_short(installed)) if installed.exists() else f"{sys.executable} -m cdcrep"
    config = shlex.quote(_short(files.config))
    display.line()
    display.line("Server and replicator go on. While they run, the replicator holds the file and answers for it:")
    display.line(f'  {program} query {config} "{QUESTION}"')
    display.line(f"  {program} status {config}")
    display.line("Change something at the source, and ask again:")
    display.line(f"  {prompt}")
    display.line("Stop both and delete the server's data:")
    display.line(f"  sh {shlex.quote(_short(files.stop_script))}")


def _results(figures: Figures, verdict: Verdict) -> list[tuple[str, str, str]]:
    results = [("rows", f"{verdict.rows:,}", f"in {len(verdict.tables)} tables, compared value by value")]
    if figures.copy_seconds:
        rate = figures.copied_rows / figures.copy_seconds
        carried = f"rows/s, over the last {figures.copied_rows:,} rows"
        results.append(("first copy", f"{rate:,.0f}", carried))
    if figures.backlog_seconds:
        rate = figures.backlog_changes / figures.backlog_seconds
        carried = f"rows/s, over {figures.backlog_changes:,} waiting changes"
        results.append(("stream", f"{rate:,.0f}", carried))
    if figures.latencies:
        p50, p99 = (f"{figures.latencies.percentile(percent):.0f}" for percent in (50, 99))
        results.append(("commit to visible, p50", p50, "ms from COMMIT returned to a query showing it"))
        beside = f"ms, {len(figures.latencies.seconds)} commits beside {figures.writers_rate:.0f} others a second"
        results.append(("commit to visible, p99", p99, beside))
    where = ", ".join(f"{count} {state}" for state, count in figures.kills.items())
    results.append(("kills survived", f"{figures.kills.total()}", where))
    results.append(("rows lost", f"{verdict.lost:,}", ""))
    results.append(("rows duplicated", f"{verdict.duplicated:,}", ""))
    results.append(("rows altered", f"{verdict.altered:,}", ""))
    transactions = sum(sequence.committed for sequence in verdict.sequences if sequence.writer != HISTORY)
    once = all(sequence.equal for sequence in verdict.sequences)
    results.append(("writers' transactions", f"{transactions:,}", "in gap-free sequences" if once else "NOT each once"))
    return results


def _short(path: Path) -> str:
    """Write a path relative to the working directory where it is below."""
    shown = os.path.relpath(path)
    return str(path) if shown.startswith("..") else shown


def _quoted(script: str) -> str:
    return f'"{script}"' if not set(script) & set('"$`\\!') else shlex.quote(script)
