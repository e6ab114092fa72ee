"""How a command is told which pipeline is meant: one configuration file, or two URLs and options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cdcrep.cli.output import Invocation, set_up_logs, warn
from cdcrep.errors import ConfigError

if TYPE_CHECKING:
    from cdcrep.config import Config

Command = TypeVar("Command", bound=Callable[..., Any])


def pipeline_arguments(*, then: str = "", needs_tables: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Give a command the arguments of a pipeline; it is called with `invocation` and `config`.

    `then` names one more argument after them. With `needs_tables` two URLs are refused without `--table`.
    """
    metavar = "{CONFIG | SOURCE_URL TARGET_URL}" + (f" {then.upper()}" if then else "")
    options = [
        click.argument("places", nargs=-1, required=True, metavar=metavar),
        click.option("--name", help="Name of the pipeline; with two URLs derived from them by default."),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set any option of the file."),
    ]
    if needs_tables:
        options += [
            click.option("--table", "include", multiple=True, metavar="SCHEMA.TABLE", help="Table or pattern to copy."),
            click.option("--exclude", multiple=True, metavar="SCHEMA.TABLE", help="Table or pattern to leave out."),
        ]

    def decorate(command: Callable[..., Any]) -> Any:
        @click.pass_obj
        @wraps(command)
        def with_config(
            invocation: Invocation,
            /,
            places: tuple[str, ...],
            name: str | None,
            overrides: tuple[str, ...],
            include: tuple[str, ...] = () if needs_tables else ("*",),
            exclude: tuple[str, ...] = (),
            **others: Any,
        ) -> Any:
            set_up_logs(invocation)
            if then:
                places, others[then] = places[:-1], places[-1]
            config = choose(places, include=include, exclude=exclude, name=name, overrides=overrides)
            for warning in config.warnings:
                warn(invocation, warning)
            return command(invocation, config, **others)

        decorated: Any = with_config
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def choose(
    places: Sequence[str],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    name: str | None = None,
    overrides: Sequence[str] = (),
) -> Config:
    """Read the file or take the URLs.

    Raises:
        ConfigError: neither one file nor two URLs, or options that do not go with them.
    """
    from cdcrep import config

    match places:
        case [path] if "://" not in path:
            if name is not None or (include and include != ("*",)) or exclude:
                raise ConfigError(
                    "--name, --table and --exclude go with two URLs; a configuration file says it itself",
                    hint=f"change {path}, or give SOURCE_URL TARGET_URL instead of it",
                )
            return config.load(Path(path), overrides)
        case [source_url, target_url] if "://" in source_url and "://" in target_url:
            if not include:
                raise ConfigError("no table is named", hint='add --table public.orders, or --table "sales.*"')
            return config.from_arguments(
                source_url, target_url, include=include, exclude=exclude, name=name, overrides=overrides
            )
    raise ConfigError(
        "give one configuration file, or a source URL and a target URL",
        hint="cdcrep run shop.toml, or cdcrep run postgresql://… duckdb:///shop.duckdb --table public.orders",
    )
