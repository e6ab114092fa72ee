"""`cdcrep init`: writes a configuration file to start from."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cdcrep.errors import ConfigError

if TYPE_CHECKING:
    from cdcrep.options_reference import Option

SOURCE_URL: Final = "postgresql://cdc@127.0.0.1:5432/shop"
TARGET_URL: Final = "duckdb:////srv/shop.duckdb"
EXAMPLE_TABLES: Final = "public.*"
"""Where a source's class does not say what its tables are usually called like."""


@click.command(short_help="Write a commented configuration file.")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path), default=Path("cdcrep.toml"))
@click.option("--source", "source_url", default=SOURCE_URL, show_default=True, help="URL of the source.")
@click.option("--target", "target_url", default=TARGET_URL, show_default=True, help="URL of the target.")
@click.option("--table", "include", multiple=True, help="Table or pattern; by default one that suits the source.")
@click.option("--name", default="shop", show_default=True, help="Name of the pipeline.")
def init(path: Path, source_url: str, target_url: str, include: tuple[str, ...], name: str) -> None:
    """Write a commented configuration file that shows every option; never over one that is there."""
    text = "\n".join(configuration(name, source_url, target_url, include)) + "\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists already", hint="name another file: cdcrep init other.toml") from error
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    click.echo(f"wrote {path}: edit it, then: cdcrep check {path}")


def configuration(name: str, source_url: str, target_url: str, include: Iterable[str]) -> Iterator[str]:
    """Write the lines of a file: what is given as it is, everything else commented out with its default."""
    from cdcrep.connector import find_sink, find_source
    from cdcrep.options_reference import connector_options, section_options, settings_options, toml
    from cdcrep.settings import Tables

    yield "# A cdcrep pipeline. Lines that are commented out show the defaults."
    yield "# ${VAR} stands for an environment variable in every text."
    yield from _options(settings_options(), {"name": toml(name)})
    yield from ("", "", "[source]")
    yield from _options(connector_options(find_source(source_url)), {"url": toml(source_url)})
    yield from ("", "", "[target]")
    yield from _options(connector_options(find_sink(target_url)), {"url": toml(target_url)})
    yield from ("", "", "[tables]")
    chosen = list(include) or [getattr(find_source(source_url), "EXAMPLE_TABLES", EXAMPLE_TABLES)]
    yield from _options(section_options(Tables), {"include": toml(chosen)})


def _options(options: Iterable[Option], given: dict[str, str]) -> Iterator[str]:
    for option in options:
        yield ""
        for line in textwrap.wrap(option.text, width=110):
            yield f"# {line}"
        if option.name in given:
            yield f"{option.name} = {given[option.name]}"
        else:
            yield f"# {option.name} = {option.default or ''}".rstrip()
