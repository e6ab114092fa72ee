"""Tables of what was measured: on the terminal, and as `docs/performance.md`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table as RichTable

from bench.consumers.windows import DUCKDB_PAUSE_SECONDS, PAUSE_SECONDS
from bench.requirements import (
    MYSQL_REPLICATION,
    NATIVE,
    RAW,
    RAW_DUMP,
    REPLICA,
    REQUIREMENTS,
    SSCURSOR,
    Requirement,
)
from bench.results import P50, P99, RATE, Outcome, Track

Outcomes = Mapping[str, Outcome]
Cell = Callable[[Track, Outcome], str]

NOTHING: Final = "-"
COMPARED: Final = (NATIVE, RAW, MYSQL_REPLICATION, REPLICA, RAW_DUMP, SSCURSOR)
"""What the rates of a workload are divided by, where it has them."""

COMMON: Final = """\
CPU seconds: source = what is read from, target = what is written to. Medians of all rounds; ratios are taken within a
round. cdcrep runs with the smallest configuration file. After each measurement the target was compared with the source,
rows and checksums; a figure that failed this is not shown."""

OF_POSTGRES: Final = f"""\
W1 to W3 are written while every consumer is stopped; each consumer has a slot of its own and drains the same log in
turn, the order changes every round. A rate counts row changes from the moment the server begins to send until the
last transaction is visible in the target. "Raw receive" reads the socket and drops what it reads. W4: from the
commit's confirmation to the writer until a reader that looks again and again (every {PAUSE_SECONDS * 1000:g} ms;
DuckDB: every {DUCKDB_PAUSE_SECONDS * 1000:g} ms, through the socket behind `cdcrep query`) has been shown the row.
W5 counts from start to exit. Of PostgreSQL the
walsender and the backends that work for the consumer count."""

OF_MYSQL: Final = """\
W1m and W2m are written while every consumer is stopped; each then reads the same log from the same place in turn, the
order changes every round. A rate counts row changes from the moment the server begins to send until the last
transaction is visible in the target, or has been decoded where there is none. "Raw dump" reads the socket and drops
what it reads. "Native replica" is a second server of the same release with GTIDs, durable as the source and otherwise
with the release's defaults (MySQL: four applier threads and a binary log; MariaDB: neither). The decoders' rows are
counted. Of MySQL and MariaDB the whole server process counts. "cdcrep to DuckDB" contains DuckDB: its buffers, 64 MB
and more where tables are large, are a part of that peak RSS. W5m counts from start to exit; the loop fetches 10,000
rows at a time, turns them into an Arrow table and inserts that, all in one transaction."""


@dataclass(frozen=True)
class Grid:
    """A table of texts."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def grids(outcomes: Outcomes) -> list[Grid]:
    """Return one table per workload and one of the requirements."""
    return [*(_figures(outcome, outcomes) for outcome in outcomes.values()), _verdicts(outcomes)]


def failures(outcomes: Outcomes) -> list[str]:
    """Return what went wrong, one line each."""
    return [
        f"{outcome.workload}: {track.name}: {track.error}"
        for outcome in outcomes.values()
        for track in outcome.tracks
        if track.error
    ]


def show(console: Console, outcomes: Outcomes) -> None:
    """Print everything."""
    for grid in grids(outcomes):
        table = RichTable(title=grid.title, title_justify="left")
        for number, column in enumerate(grid.columns):
            table.add_column(column, justify="right" if number else "left", overflow="fold")
        for row in grid.rows:
            table.add_row(*row)
        console.print(table)
    for failure in failures(outcomes):
        console.print(f"ERROR {failure}", style="red", markup=False, highlight=False)


def markdown(outcomes: Outcomes, machine: Mapping[str, str], date: str, command: str) -> str:
    """Return everything as a page of the documentation."""
    facts = {"date": date, "command": f"`{command}`", **machine}
    lines = ["# Performance", "", "Written by the command below; machines differ, so compare ratios.", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    of_mysql = any("m-" in workload for workload in outcomes)
    of_postgres = any("m-" not in workload for workload in outcomes)
    lines += ["", *[OF_POSTGRES, ""] * of_postgres, *[OF_MYSQL, ""] * of_mysql, COMMON]
    for grid in grids(outcomes):
        lines += ["", f"## {grid.title}", "", _line(grid.columns)]
        lines.append(_line(["---", *("---:" for _ in grid.columns[1:])]))
        lines += [_line(row) for row in grid.rows]
    lines += ["", *(f"- ERROR {failure}" for failure in failures(outcomes))]
    return "\n".join(lines).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _figures(outcome: Outcome, outcomes: Outcomes) -> Grid:
    columns: dict[str, Cell] = {"consumer": lambda track, _: track.name}
    if outcome.workload == "W4":
        columns |= {"p50 ms": _metric(P50, 1), "p99 ms": _metric(P99, 1)}
    else:
        columns |= {"rows/s": _metric(RATE, 0), "lowest to highest": _spread}
        columns |= {f"/ {other}": _ratio(other) for other in COMPARED if outcome.track(other)}
    for role in ("source", "consumer", "target"):
        columns[f"CPU s {role}"] = _cpu(role)
    columns["peak RSS MiB"] = lambda track, _: _number(track.peak_rss_mib(), 0)
    columns["required"] = lambda track, outcome: _summary(track, outcome, outcomes)
    rows = [
        [cell(track, outcome) for cell in columns.values()]
        if not track.error
        else [track.name, "ERROR", *(NOTHING for _ in range(len(columns) - 2))]
        for track in outcome.tracks
    ]
    return Grid(f"{outcome.workload}: {outcome.title}", list(columns), rows)


def _verdicts(outcomes: Outcomes) -> Grid:
    rows = [
        _verdict(requirement, outcomes)
        for workload in outcomes
        for requirement in REQUIREMENTS
        if requirement.workload == workload
    ]
    return Grid("Requirements", ["workload", "consumer", "required", "measured", "met"], rows)


def _summary(track: Track, outcome: Outcome, outcomes: Outcomes) -> str:
    """Say in a few words how a track fared; the table of the requirements has the details."""
    asked = [item for item in REQUIREMENTS if (item.workload, item.consumer) == (outcome.workload, track.name)]
    figures = [(item, item.measured(outcomes)) for item in asked]
    if not asked:
        return ""
    met = sum(figure is not None and item.is_met_by(figure) for item, figure in figures)
    return "met" if met == len(asked) else f"{met} of {len(asked)} met"


def _verdict(requirement: Requirement, outcomes: Outcomes) -> list[str]:
    figure = requirement.measured(outcomes)
    met = NOTHING if figure is None else "yes" if requirement.is_met_by(figure) else "NO"
    digits = 2 if requirement.other else 1
    return [
        requirement.workload,
        requirement.consumer,
        requirement.text,
        "not measured" if figure is None else _number(figure, digits),
        met,
    ]


def _number(figure: float | None, digits: int) -> str:
    return NOTHING if figure is None else f"{figure:,.{digits}f}"


def _metric(metric: str, digits: int) -> Cell:
    return lambda track, _: _number(track.median(metric), digits)


def _spread(track: Track, _: Outcome) -> str:
    extremes = track.extremes(RATE)
    return f"{extremes[0]:,.0f} to {extremes[1]:,.0f}" if extremes else NOTHING


def _ratio(other: str) -> Cell:
    def cell(track: Track, outcome: Outcome) -> str:
        compared = outcome.track(other)
        return _number(track.ratio(compared) if compared else None, 2)

    return cell


def _cpu(role: str) -> Cell:
    return lambda track, _: _number(track.cpu_seconds(role), 1)
