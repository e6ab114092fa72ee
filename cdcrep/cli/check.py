"""`cdcrep check`: everything that stands in the way, at once, with what removes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cdcrep.cli.arguments import pipeline_arguments
from cdcrep.cli.output import Invocation
from cdcrep.errors import CdcrepError, SetupError
from cdcrep.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcrep.config import Config
    from cdcrep.connector import Obstacle
    from cdcrep.table import Table


@click.command(short_help="Say what stands in the way, and what to type.")
@pipeline_arguments(needs_tables=True)
def check(_invocation: Invocation, config: Config) -> int:
    """Say everything that stands in the way of replication, with what removes it; changes nothing.

    Exit code 0: replication can start; 3: something has to be done first.
    """
    source_obstacles, tables = _examine_source(config)
    target_obstacles = _examine_target(config, tables)
    fatal = 0
    for role, obstacles in (("source", source_obstacles), ("target", target_obstacles)):
        for obstacle in obstacles:
            fatal += obstacle.fatal
            click.echo(redact(f"{'obstacle' if obstacle.fatal else 'note'}: {role}: {obstacle.what}"))
            for line in obstacle.hint.splitlines():
                click.echo(redact(f"    {line}"))
    if fatal:
        click.echo(f"{config.name}: {fatal} {'obstacles' if fatal > 1 else 'obstacle'}")
        return SetupError.exit_code
    click.echo(f"{config.name}: ready to replicate {len(tables)} {'tables' if len(tables) != 1 else 'table'}")
    return 0


def _examine_source(config: Config) -> tuple[list[Obstacle], Sequence[Table]]:
    source = config.open_source()
    try:
        obstacles = source.obstacles()
        return obstacles, source.tables()
    except CdcrepError as error:
        return [_as_obstacle(error)], ()
    finally:
        source.close()


def _examine_target(config: Config, tables: Sequence[Table]) -> list[Obstacle]:
    from cdcrep.connector import Obstacle
    from cdcrep.service.client import ask_status
    from cdcrep.service.places import socket_name

    running = ask_status(socket_name(config.name, config.target_identity))
    if running is not None:
        what = f"process {running['pid']} runs this pipeline, so the target was not examined"
        return [Obstacle(what, fatal=False)]
    sink = config.open_sink()
    try:
        return sink.obstacles(tables)
    except CdcrepError as error:
        return [_as_obstacle(error)]
    finally:
        sink.close()


def _as_obstacle(error: CdcrepError) -> Obstacle:
    from cdcrep.connector import Obstacle

    return Obstacle(error.message, error.hint or "")
