"""Connectors are found by the scheme of a URL."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from cdcrep import connector
from cdcrep.connector import Checkpoint, Pipeline, Sink, Source, find_sink, find_source
from cdcrep.errors import ConfigError
from cdcrep.selection import Selection
from cdcrep.testing.memory import MemorySink, MemorySource

PIPELINE = Pipeline("p", Selection(("*",)))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {
        "cdcrep.sources": [
            EntryPoint("memory", "cdcrep.testing.memory:MemorySource", "cdcrep.sources"),
            EntryPoint("absent", "no_such_driver.source:Source", "cdcrep.sources"),
        ],
        "cdcrep.sinks": [EntryPoint("memory", "cdcrep.testing.memory:MemorySink", "cdcrep.sinks")],
    }
    monkeypatch.setattr(connector, "entry_points", lambda group: groups[group])


def test_a_scheme_finds_its_class(installed: None) -> None:
    assert find_source("memory:shop") is MemorySource
    assert find_sink("MEMORY:warehouse") is MemorySink


@pytest.mark.parametrize(("find", "role"), [(find_source, "source"), (find_sink, "sink")])
def test_an_unknown_scheme_names_the_known_ones(
    installed: None, find: Callable[[str], type[object]], role: str
) -> None:
    with pytest.raises(ConfigError, match=f"no {role} for the URL scheme 'oracle'") as raised:
        find("oracle://user:secret@host/db")

    assert "memory" in str(raised.value.hint)
    assert "secret" not in str(raised.value) + str(raised.value.hint)


def test_a_missing_driver_names_the_package(installed: None) -> None:
    with pytest.raises(ConfigError, match="no_such_driver") as raised:
        find_source("absent://host")

    assert "pip install" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("option", "url", "driver", "extra"),
    [
        ("--source", "postgresql://db/shop", "psycopg", "postgres"),
        ("--source", "mysql://db/shop", "pymysql", "mysql"),
        ("--target", "mariadb://db/shop", "pymysql", "mysql"),
        ("--target", "duckdb:///shop.duckdb", "duckdb", "duckdb"),
    ],
)
def test_a_connector_without_its_driver_names_the_extra(
    tmp_path: Path, option: str, url: str, driver: str, extra: str
) -> None:
    program = f"import sys; sys.modules[{driver!r}] = None; from cdcrep.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "init", str(tmp_path / "shop.toml"), option, url]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert f"needs a package that is not installed: {driver}" in done.stderr
    assert f"pip install 'cdcrep[{extra}]'" in done.stderr


def test_the_memory_pair_has_every_method_of_the_contract() -> None:
    assert isinstance(MemorySource(PIPELINE, MemorySource.Options(url="memory:protocol")), Source)
    assert isinstance(MemorySink(PIPELINE, MemorySink.Options(url="memory:protocol")), Sink)


def test_a_new_checkpoint_has_no_position() -> None:
    assert Checkpoint().position is None
    assert Checkpoint().tables == {}
