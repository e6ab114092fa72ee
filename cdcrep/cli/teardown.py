"""`cdcrep teardown`: removes what replication created, not the tables."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from cdcrep.cli.arguments import pipeline_arguments
from cdcrep.cli.output import Invocation
from cdcrep.errors import ConfigError

if TYPE_CHECKING:
    from cdcrep.config import Config


@click.command(short_help="Remove what replication created at the source and in the target.")
@pipeline_arguments()
@click.option("--yes", is_flag=True, help="Do not ask.")
def teardown(_invocation: Invocation, config: Config, yes: bool) -> None:
    """Remove what replication created: at the source (slot, publication) and the bookkeeping in the target.

    The copied tables stay. Going on afterwards means copying everything again.
    """
    from cdcrep.service.places import runtime_directory, socket_name
    from cdcrep.service.server import claim

    path = runtime_directory() / socket_name(config.name, config.target_identity)
    with claim(path):
        if not yes:
            _ask(config)
        path.with_suffix(".failed").unlink(missing_ok=True)
        source, sink = config.open_source(), config.open_sink()
        with contextlib.ExitStack() as both:
            both.callback(source.close)
            both.callback(sink.close)
            done = [*source.tear_down(), *sink.forget()]
    for message in done:
        click.echo(message)
    if not done:
        click.echo(f"{config.name}: there is nothing to remove")


def _ask(config: Config) -> None:
    click.echo(f"pipeline {config.name}: from {config.source_url} to {config.target_url}")
    if not sys.stdin.isatty():
        raise ConfigError("teardown asks before it removes anything, and there is nobody to ask", hint="add --yes")
    click.confirm(
        "Remove what it created at the source, and its bookkeeping? To go on later, everything is copied again.",
        abort=True,
    )
