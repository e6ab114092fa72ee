"""The command line of the measurements: `python -m bench [--quick] [--only W1,W2]`."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from bench import kept_results, report
from bench.clusters import Clusters
from bench.machine import describe
from bench.mysql_plan import MYSQL_WORKLOADS
from bench.mysql_servers import KINDS, MySQLServers
from bench.plan import POSTGRES_WORKLOADS, WORKLOADS, Plan, Sizes
from bench.results import Outcome
from cdcrep.connector import Pipeline


def chosen(value: str | None) -> tuple[str, ...]:
    """Return the workloads that `--only` names, in the order in which to measure them; all without it."""
    names = set(value.split(",") if value else WORKLOADS)
    # W1m stands for W1m-mariadb and W1m-mysql.
    families = {workload: workload.partition("m-")[0] + "m" for workload in MYSQL_WORKLOADS}
    if unknown := sorted(names - set(WORKLOADS) - set(families.values())):
        raise click.BadParameter(f"{', '.join(unknown)} (there are {', '.join(WORKLOADS)})")
    return tuple(workload for workload in WORKLOADS if workload in names or families.get(workload) in names)


@click.command()
@click.option("--quick", is_flag=True, help="A tenth of the size.")
@click.option("--scale", type=click.FloatRange(min=0, min_open=True), help="Another fraction of the full size.")
@click.option(
    "--only",
    "workloads",
    callback=lambda _context, _parameter, value: chosen(value),
    help=f"Some of {','.join(WORKLOADS)}; W1m is both.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--big-rows", type=int, help="Rows of W2-big's table (default: 20,000,000, or a tenth).")
@click.option("--major", default=15, show_default=True, help="PostgreSQL's major version.")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("/tmp"),
    show_default=True,
    help="Where the clusters' data goes: up to 30 GB.",
)
@click.option("--write", type=click.Path(dir_okay=False, path_type=Path), help="Write the results to this page, too.")
@click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Add the results to those of earlier runs, which this file keeps: the page has all of them.",
)
def main(
    quick: bool,
    scale: float | None,
    workloads: tuple[str, ...],
    rounds: int,
    big_rows: int | None,
    major: int,
    directory: Path,
    write: Path | None,
    results: Path | None,
) -> None:
    """Measure cdcrep against PostgreSQL's own subscription, the raw receive limit and other ways to copy."""
    sizes = Sizes().divided_by(1 / scale if scale else 10 if quick else 1)
    if big_rows:
        sizes = Sizes(**{**vars(sizes), "big_rows": big_rows})
    plan = Plan(workloads, sizes, rounds, connections=Pipeline.copy_workers)
    console = Console(width=None if sys.stdout.isatty() else 160)
    began, load = time.monotonic(), os.getloadavg()[0]

    def say(text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        console.print(f"{minutes:3}:{seconds:02} {text}", markup=False, highlight=False, soft_wrap=True)

    # Ends through the contexts, which stop the servers and delete their data.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    outcomes: dict[str, Outcome] = {}
    facts: dict[str, str] = {}
    if of_postgres := [workload for workload in plan.workloads if workload in POSTGRES_WORKLOADS]:
        with Clusters(major, directory) as clusters:
            facts |= clusters.facts()
            for workload in of_postgres:
                outcomes[workload] = plan.measure(clusters, workload, say)
    for kind in KINDS:
        if of_kind := [workload for workload in plan.workloads if workload.endswith(f"-{kind}")]:
            with MySQLServers(kind, major, directory) as servers:
                facts |= servers.facts()
                for workload in of_kind:
                    outcomes[workload] = plan.measure_mysql(servers, workload, say)
    facts = {**describe(directory, load), **facts}
    command = shlex.join(["python", "-m", "bench", *sys.argv[1:]])
    if results:
        earlier, their_facts = kept_results.read(results)
        facts = {**their_facts, **facts}
        outcomes = {
            workload: found for workload in WORKLOADS if (found := outcomes.get(workload, earlier.get(workload)))
        }
        kept_results.write(results, outcomes, facts)
    report.show(console, outcomes)
    for name, value in facts.items():
        say(f"{name}: {value}")
    if write:
        write.parent.mkdir(parents=True, exist_ok=True)
        write.write_text(report.markdown(outcomes, facts, f"{datetime.now(UTC):%Y-%m-%d}", command))
        say(f"written to {write}")
    if report.failures(outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
