"""docs/configuration.md and the models say the same."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from cdcrep.cli.init import configuration
from cdcrep.connector import find_sink, find_source
from cdcrep.options_reference import (
    CONNECTORS,
    Option,
    connector_options,
    section_options,
    settings_options,
    with_tables,
)
from cdcrep.settings import CheckpointInterval, Settings, Tables

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def all_options() -> dict[str, list[Option]]:
    found = {
        "": settings_options(),
        "tables": section_options(Tables),
        "checkpoint_interval": section_options(CheckpointInterval),
    }
    for role, scheme in CONNECTORS:
        find = find_source if role == "source" else find_sink
        found[f"{role} {scheme}"] = connector_options(find(f"{scheme}:"))
    return found


def test_the_page_shows_the_options_as_they_are() -> None:
    page = PAGE.read_text()

    assert with_tables(page) == page, "bring it up to date: python -m cdcrep.options_reference docs/configuration.md"


def test_every_option_has_a_line_of_documentation() -> None:
    silent = {place: [o.name for o in options if not o.text] for place, options in all_options().items()}

    assert {place: names for place, names in silent.items() if names} == {}


def test_only_what_nobody_can_guess_has_no_default() -> None:
    required = {(place, o.name) for place, options in all_options().items() for o in options if o.default is None}

    urls = {(f"{role} {scheme}", "url") for role, scheme in CONNECTORS}
    assert required == {("", "name"), ("tables", "include")} | urls


@pytest.mark.parametrize(
    ("name", "default"),
    [("max_retries", 3), ("transaction_timeout", 30.0), ("checkpoint_interval", CheckpointInterval())],
)
def test_the_tunables_keep_their_names_and_defaults(name: str, default: object) -> None:
    assert Settings.model_fields[name].default == default


@pytest.mark.parametrize(
    ("source", "include"), [("mysql://cdc@db/shop", ["shop.*"]), ("postgresql://cdc@db/shop", ["public.*"])]
)
def test_init_proposes_tables_that_suit_the_source(source: str, include: list[str]) -> None:
    written = tomllib.loads("\n".join(configuration("shop", source, "duckdb:///shop.duckdb", ())))

    assert written["tables"]["include"] == include
