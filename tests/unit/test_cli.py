"""The commands as such: help, usage, errors, and the file that `init` writes."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import click
import pytest

from cdcrep import config, connector
from cdcrep.cli import main
from cdcrep.cli.program import program
from cdcrep.errors import CdcrepError
from tests.unit import memory_program

COMMANDS = sorted(program.commands)
PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def memory_connectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector, "_find", memory_program.find)


def exit_code(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str) -> None:
    command = program.commands[name]

    assert command.help
    assert command.short_help
    silent = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    assert silent == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_stands_in_the_documentation(name: str) -> None:
    assert f"`cdcrep {name}" in PAGE.read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_shown_without_loading_a_connector(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(name, "--help") == 0

    assert capsys.readouterr().out.startswith("Usage: cdcrep")


@pytest.mark.parametrize(
    "arguments",
    [[], ["rum"], ["run"], ["run", "--nonsense"], ["run", "a", "b", "c"], ["run", "memory://h/a"], ["query", "a.toml"]],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*arguments) == 2

    assert "Traceback" not in capsys.readouterr().err


def test_two_urls_need_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("run", "memory://h/a", "memory://h/b") == 2

    assert "--table" in capsys.readouterr().err


def test_a_file_says_its_tables_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("run", str(tmp_path / "a.toml"), "--table", "public.orders") == 2

    assert "--table" in capsys.readouterr().err


def test_an_error_is_a_message_and_a_hint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("status", str(tmp_path / "absent.toml")) == 2

    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: cannot read")
    assert hint.startswith("hint: cdcrep init")


@pytest.mark.parametrize("place", ["before", "after"])
def test_v_shows_where_an_error_came_from(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    exit_code(*(["-v", "status", "absent.toml"] if place == "before" else ["status", "absent.toml", "-v"]))

    assert "Traceback" in capsys.readouterr().err


def test_an_unexpected_error_is_short_and_without_its_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("row canary-value")

    monkeypatch.setattr(config, "load", fail)

    assert exit_code("status", "a.toml") == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: unexpected RuntimeError",
        "hint: run again with -v to see where it came from, and please report it",
    ]


def test_no_secret_of_an_error_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> None:
        raise CdcrepError("cannot reach memory://cdc:canary@h/a", hint="try password=canary")

    monkeypatch.setattr(config, "load", fail)

    assert exit_code("-v", "status", "a.toml") == 1
    assert "canary" not in capsys.readouterr().err


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(config, "load", interrupt)

    assert exit_code("status", "a.toml") == 130


def init(path: Path) -> int | str | None:
    return exit_code("init", str(path), "--source", "memory://h/shop", "--target", "memory://h/copy")


def test_init_writes_a_private_file_that_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"

    assert init(path) == 0

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert config.load(path).name == "shop"


def test_the_defaults_that_init_shows_are_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    init(path)
    shown = config.load(path).settings

    path.write_text(re.sub(r"^# (\w+ = \S.*)$", r"\1", path.read_text(), flags=re.MULTILINE))

    assert path.read_text().count("\n# ") < path.read_text().count(" = ") * 3
    assert "\nmax_retries = 3\n" in path.read_text()
    told = config.load(path).settings
    assert told.model_copy(update={"source": {}}) == shown.model_copy(update={"source": {}})


def test_init_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shop.toml"
    path.write_text("mine")

    assert init(path) == 2

    assert path.read_text() == "mine"
    assert "exists already" in capsys.readouterr().err
