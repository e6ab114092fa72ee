"""`cdcrep demo`: the demonstration."""

from __future__ import annotations

from pathlib import Path

import click

from cdcrep.cli.output import Invocation, set_up_logs
from cdcrep.errors import ConfigError


@click.command(short_help="Replicate a real database while the replicator is killed again and again.")
@click.option(
    "--source",
    type=click.Choice(["postgresql", "mysql"]),
    default="postgresql",
    show_default=True,
    help="The database to replicate; mysql: MySQL or MariaDB, whichever this machine has.",
)
@click.option("--keep", is_flag=True, help="Leave everything running afterwards, to play with.")
@click.option("--kills", type=click.IntRange(min=0), default=10, show_default=True, help="How often to kill it.")
@click.option("--seed", type=int, help="Repeat the random choices of an earlier run.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("cdcrep-demo"),
    show_default=True,
    help="Where demo.toml and demo.duckdb go.",
)
@click.pass_obj
def demo(invocation: Invocation, source: str, keep: bool, kills: int, seed: int | None, directory: Path) -> int:
    """Replicate a real database into a DuckDB file while the replicator is killed again and again.

    Starts a server of its own, writes to it, kills, and compares every table row by row in the end.
    """
    from rich.console import Console

    set_up_logs(invocation)
    try:
        from cdcrep.demo import run
    except ImportError as error:
        raise ConfigError(
            f"the demonstration needs a package that is not installed: {error.name}", hint="pip install 'cdcrep[demo]'"
        ) from error
    return int(run(directory, keep=keep, kills=kills, seed=seed, console=Console(), database=source))
