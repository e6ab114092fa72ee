"""`cdcrep query`: read-only SQL on the copy, at one exact commit of the source."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from cdcrep.cli.arguments import pipeline_arguments
from cdcrep.cli.output import Invocation, say
from cdcrep.errors import ConfigError

if TYPE_CHECKING:
    from cdcrep.config import Config
    from cdcrep.connector import Answer


@click.command(short_help="Run read-only SQL on the target, beside replication.")
@pipeline_arguments(then="sql")
@click.option(
    "--format",
    "shape",
    type=click.Choice(["table", "csv", "arrow"]),
    default="table",
    show_default=True,
    help="What to write to standard output; arrow: an Arrow IPC stream.",
)
def query(_invocation: Invocation, config: Config, sql: str, shape: str) -> None:
    """Run read-only SQL on the target, beside replication, at one exact commit of the source.

    Asks the running process, if there is one: a file that it holds open cannot be read by others. Standard error says
    which commit was seen.
    """
    from cdcrep.cli import answers

    if shape == "arrow" and sys.stdout.isatty():
        raise ConfigError("an Arrow stream is no text for a terminal", hint="redirect it: > rows.arrow")
    answer = _ask(config, sql)
    say(_commit(answer))
    {"table": answers.write_table, "csv": answers.write_csv, "arrow": answers.write_arrow}[shape](answer.data)


def _ask(config: Config, sql: str) -> Answer:
    from cdcrep.service.client import ask_query
    from cdcrep.service.places import socket_name

    answer = ask_query(socket_name(config.name, config.target_identity), sql)
    if answer is not None:
        return answer
    sink = config.open_sink()
    try:
        return sink.query(sql)
    finally:
        sink.close()


def _commit(answer: Answer) -> str:
    if answer.position is None:
        return "as of no known commit: the first copy is not complete, or the pipeline is gone"
    at = "" if answer.commit_time is None else datetime.fromtimestamp(answer.commit_time, UTC).isoformat()
    return f"as of position {answer.position}" + (f", committed at {at.replace('+00:00', 'Z')}" if at else "")
