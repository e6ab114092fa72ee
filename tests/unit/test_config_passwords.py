"""Passwords: where they may come from, and that they appear nowhere."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import BaseModel, field_validator

from cdcrep import connector
from cdcrep.config import from_arguments, load
from cdcrep.errors import ConfigError
from cdcrep.redaction import redact, url_password, without_credentials
from cdcrep.testing.memory import MemorySource
from tests.unit import memory_program

CANARIES = ["canary-4711", "canary%40x", "can'ary'1", "canary@host", "canary/#?x", "canary:1", "can%ary", 'can"ary"']


@pytest.fixture(autouse=True)
def memory_connectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector, "_find", memory_program.find)


def write(path: Path, source: str, mode: int = 0o600) -> Path:
    path.write_text(
        f'name = "shop"\n[source]\n{source}\n[target]\nurl = "memory:copy"\n[tables]\ninclude = ["public.*"]\n'
    )
    path.chmod(mode)
    return path


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.password"
    path.write_text("canary p@ss/4711\n")
    path.chmod(0o600)
    return path


def source_url(path: Path) -> str:
    return str(load(path).source_options.url)  # type: ignore[attr-defined]  # the memory source's own


@pytest.mark.parametrize("canary", CANARIES)
@pytest.mark.parametrize(
    "text",
    [
        "no route to postgresql://cdc:{}@db:5432/shop today",
        "postgresql://:{}@db/shop",
        "'postgresql://cdc:{}@db/shop?sslmode=require'",
    ],
)
def test_passwords_of_urls_are_hidden(canary: str, text: str) -> None:
    assert "ary" not in redact(text.format(canary))
    assert "db" in redact(text.format(canary))


@pytest.mark.parametrize(
    "text",
    [
        "host=db password=canary-1 user=cdc",
        "host=db password='canary \\' 1' user=cdc",
        "postgresql://db/shop?user=cdc&password=canary-1&x=1",
        "{'user': 'cdc', 'password': 'canary-1'}",
        '{"user": "cdc", "password": "canary \\" 1"}',
        "PGPASSWORD=canary-1 user=cdc",
    ],
)
def test_password_pairs_are_hidden(text: str) -> None:
    assert "canary" not in redact(text)
    assert "user" in redact(text)


@pytest.mark.parametrize("text", ["postgresql://cdc@db:5432/shop", "password_file shop.password is empty", "a@b c:d"])
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("postgresql://cdc:pw@db/shop", "pw"),
        ("postgresql://cdc:p@w/x@db/shop", "p@w/x"),
        ("postgresql://cdc@db:5432/shop", None),
        ("postgresql://db/shop?password=pw&x=1", "pw"),
        ("duckdb:////srv/a:b@c.duckdb", None),
    ],
)
def test_the_password_of_a_url_is_found(url: str, password: str | None) -> None:
    assert url_password(url) == password


def test_a_database_is_named_without_who_connects() -> None:
    assert without_credentials("postgresql://cdc:pw@db:5432/shop?sslmode=require") == "postgresql://db:5432/shop"


def test_variables_are_put_into_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_URL", "memory://h/p%40th")

    assert source_url(write(tmp_path / "a.toml", 'url = "${SHOP_URL}"')) == "memory://h/p%40th"
    assert source_url(write(tmp_path / "b.toml", 'url = "memory:$${SHOP_URL}"')) == "memory:${SHOP_URL}"


def test_a_password_from_a_variable_is_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "canary p@ss/%")

    path = write(tmp_path / "a.toml", 'url = "memory://cdc:${SHOP_PASSWORD}@db:1/shop"', mode=0o644)

    assert source_url(path) == f"memory://cdc:{quote('canary p@ss/%', safe='')}@db:1/shop"
    assert load(path).warnings == ()


def test_a_variable_that_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_URL", raising=False)

    with pytest.raises(ConfigError, match=r"source\.url: the environment variable SHOP_URL is not set"):
        load(write(tmp_path / "a.toml", 'url = "${SHOP_URL}"'))


def test_a_password_file_is_found_beside_the_configuration(tmp_path: Path, password_file: Path) -> None:
    config = load(write(tmp_path / "a.toml", f'url = "memory://cdc@db:1/shop"\npassword_file = "{password_file.name}"'))

    encoded = quote("canary p@ss/4711", safe="")
    assert config.source_options.url == f"memory://cdc:{encoded}@db:1/shop"  # type: ignore[attr-defined]  # its own
    assert config.source_url == "memory://cdc:***@db:1/shop"
    assert config.pipeline.source == "memory://db:1/shop"
    assert redact("the server said canary p@ss/4711 twice") == "the server said *** twice"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_password_file_that_others_may_read_is_refused(tmp_path: Path, password_file: Path, mode: int) -> None:
    password_file.chmod(mode)

    with pytest.raises(ConfigError, match="may be read by other users") as refused:
        load(write(tmp_path / "a.toml", 'url = "memory://cdc@db/shop"\npassword_file = "shop.password"'))

    assert refused.value.hint == f"chmod 600 {password_file}"


def test_a_password_file_is_no_link_no_folder_and_not_empty(tmp_path: Path, password_file: Path) -> None:
    (tmp_path / "link").symlink_to(password_file)
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "empty").touch(mode=0o600)

    for name in ("link", "folder", "empty", "absent"):
        with pytest.raises(ConfigError, match=name):
            load(write(tmp_path / "a.toml", f'url = "memory://cdc@db/shop"\npassword_file = "{name}"'))


@pytest.mark.parametrize("url", ["memory://cdc:canary-1@db/shop", "memory:shop"])
def test_a_password_file_needs_a_url_with_a_server_and_no_password(
    tmp_path: Path, password_file: Path, url: str
) -> None:
    with pytest.raises(ConfigError, match="password_file stands beside a url") as refused:
        load(write(tmp_path / "a.toml", f'url = "{url}"\npassword_file = "{password_file}"'))

    assert "canary" not in str(refused.value)


def test_a_readable_file_with_a_password_is_warned_of(tmp_path: Path) -> None:
    url = 'url = "memory://cdc:canary-2@db/shop"'

    (warning,) = load(write(tmp_path / "a.toml", url, mode=0o644)).warnings

    assert f"chmod 600 {tmp_path / 'a.toml'}" in warning
    assert load(write(tmp_path / "b.toml", url, mode=0o600)).warnings == ()


def test_a_password_on_the_command_line_is_warned_of() -> None:
    config = from_arguments("memory://cdc:canary-3@db/shop", "memory:copy", include=["public.*"])

    (warning,) = config.warnings
    assert "source URL" in warning
    assert "canary" not in warning + repr(config) + config.source_url


def test_a_password_in_an_override_is_warned_of(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", 'url = "memory:shop"', mode=0o644)

    (warning,) = load(path, ["source.url=memory://cdc:canary-5@db/shop"]).warnings

    assert warning.startswith("--set source.url on the command line contains a password")


class TalkativeOptions(BaseModel):
    url: str

    @field_validator("url")
    @classmethod
    def refuse(cls, url: str) -> str:
        raise ValueError(f"cannot use {url}")


def test_a_password_that_a_connector_repeats_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemorySource, "Options", TalkativeOptions)

    with pytest.raises(ConfigError, match="cannot use") as refused:
        load(write(tmp_path / "a.toml", 'url = "memory://cdc:canary-6@db/shop"'))

    assert "canary" not in refused.value.message
