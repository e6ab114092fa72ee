"""`cdcrep status`: how a pipeline is doing, whether or not it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from cdcrep.cli.arguments import pipeline_arguments
from cdcrep.cli.output import Invocation

if TYPE_CHECKING:
    from cdcrep.config import Config


@click.command(short_help="Show state, position, lag and rows per table.")
@pipeline_arguments()
@click.option("--json", "as_json", is_flag=True, help="Print the object that docs/status.md describes.")
def status(_invocation: Invocation, config: Config, as_json: bool) -> int:
    """Show state, position, lag and rows per table, beside a running process and without one.

    Exit code 0: replicating, or up to date; 1: not replicating and behind, or failed.
    """
    from cdcrep.status import examine, exit_code

    found = _ask(config) or examine(config, last_error=_last_error(config))
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        for line in lines(found):
            click.echo(line)
    return exit_code(found)


def _ask(config: Config) -> dict[str, Any] | None:
    from cdcrep.service.client import ask_status
    from cdcrep.service.places import socket_name

    return ask_status(socket_name(config.name, config.target_identity))


def _last_error(config: Config) -> dict[str, Any] | None:
    from cdcrep.service.places import candidates, socket_name
    from cdcrep.status import recall_failure

    name = socket_name(config.name, config.target_identity)
    for directory in candidates():
        if found := recall_failure((directory / name).with_suffix(".failed")):
            return found
    return None


def lines(status: Mapping[str, Any]) -> Iterator[str]:
    """Write a status object for people."""
    from rich.filesize import decimal

    def size(count: int | None) -> str:
        return "unknown" if count is None else decimal(count)

    source, target, lag = status["source"], status["target"], status["lag"]
    by = f" by process {status['pid']} since {status['started_at']}" if status["pid"] else ", no process runs it"
    yield f"pipeline  {status['pipeline']}"
    yield f"state     {status['state']}{by}"
    yield f"source    {source['url']}" + (f"  cannot be asked: {source['error']}" if source["error"] else "")
    yield f"target    {target['url']}" + (f"  cannot be asked: {target['error']}" if target["error"] else "")
    committed = f", committed at {status['commit_time']}" if status["commit_time"] else ""
    yield f"position  {status['position'] or 'none yet'}{committed}"
    seconds = "unknown" if lag["seconds"] is None else f"{lag['seconds']:.1f} s"
    yield f"lag       {size(lag['bytes'])}, {seconds}"
    yield f"retained  {size(status['retained_bytes'])} of the source's log"
    for key, value in source["details"].items():
        yield f"          {key}: {value}"
    for table, figures in status["tables"].items():
        copied = "copied" if figures["copy_done"] else "being copied"
        changes = f"{figures['changes_applied']:,} changes applied"
        yield f"table     {table}: {figures['rows_copied']:,} rows {copied}, {changes}"
    if status["last_error"]:
        at = f" at {status['last_error']['at']}" if status["last_error"]["at"] else ""
        yield f"error     {status['last_error']['message']}{at}"
