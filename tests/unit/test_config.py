"""The configuration file and the command line's URLs: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cdcrep import connector
from cdcrep.config import Config, from_arguments, load
from cdcrep.errors import ConfigError
from tests.unit import memory_program

SMALLEST = """
name = "shop"
[source]
url = "memory:shop"
[target]
url = "memory:copy"
[tables]
include = ["public.orders", "sales.*"]
"""


@pytest.fixture(autouse=True)
def memory_connectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector, "_find", memory_program.find)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(SMALLEST)
    path.chmod(0o600)
    return path


def refusal(path: Path, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as refused:
        load(path, overrides)
    assert refused.value.message.startswith(f"{path}: ")
    return refused.value


def test_the_smallest_file_gets_the_documented_defaults(file: Path) -> None:
    config = load(file)

    assert config.name == "shop"
    assert config.max_retries == 3
    assert config.pipeline.transaction_timeout == 30
    assert config.pipeline.heartbeat_seconds == 5
    assert config.pipeline.checkpoint_rows == 200_000
    assert config.pipeline.on_existing == "refuse"
    assert config.pipeline.tables.include == ("public.orders", "sales.*")
    assert config.warnings == ()


def test_a_configuration_opens_its_connectors_with_the_pipeline(file: Path) -> None:
    config = load(file)

    assert config.open_source().pipeline is config.pipeline  # type: ignore[attr-defined]  # the memory source's own
    assert config.open_sink().pipeline is config.pipeline  # type: ignore[attr-defined]  # the memory sink's own


@pytest.mark.parametrize(
    ("override", "words", "hint"),
    [
        ("max_retrys=1", "unknown key 'max_retrys'", "did you mean 'max_retries'?"),
        ("tables.exlude=[]", "unknown key 'exlude' in [tables]", "did you mean 'exclude'?"),
        ("source.chunk=2", "unknown key 'chunk' in [source]", "did you mean 'chunks'?"),
        ("checkpoint_interval.second=2", "unknown key 'second' in [checkpoint_interval]", "did you mean 'seconds'?"),
        ("include=[]", "unknown key 'include'", "include belongs under [tables]"),
        ("exlude=[]", "unknown key 'exlude'", "did you mean 'exclude' in [tables]?"),
        ("tables.max_retries=1", "unknown key 'max_retries' in [tables]", "max_retries belongs at the top of the file"),
        ("target.name=x", "unknown key 'name' in [target]", "name belongs at the top of the file"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_name(
    file: Path, override: str, words: str, hint: str
) -> None:
    error = refusal(file, override)

    assert words in error.message
    assert (error.hint or "").startswith(hint)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("name=Shop", "name: "),
        (f"name={'x' * 64}", "name: "),
        ("max_retries=-1", "max_retries: "),
        ("transaction_timeout=0", "transaction_timeout: "),
        ("max_batch_bytes=10", "max_batch_bytes: "),
        ("tables.on_existing=drop", "on_existing in [tables]: "),
        ("tables.include=[]", "include in [tables]: "),
        ('tables.include=["orders"]', "include in [tables] holds 'orders', which names no schema"),
        ("source.url=shop", "[source] has no url that begins with a scheme"),
        ("source.chunks=many", "chunks in [source]: "),
        ("checkpoint_interval=0", "seconds in [checkpoint_interval]: "),
    ],
)
def test_a_wrong_value_is_refused_under_the_name_of_its_key(file: Path, override: str, words: str) -> None:
    assert words in refusal(file, override).message


@pytest.mark.parametrize("key", ["name", "max_retries", "source.chunks", "tables.on_existing", "tables.allow_lossy"])
def test_a_refusal_never_repeats_the_value(file: Path, key: str) -> None:
    error = refusal(file, f"{key}=Canary-4711")

    assert "anary" not in f"{error.message} {error.hint}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('name = "shop"', "name is missing"),
        ('url = "memory:copy"', "[target] has no url"),
        ('include = ["public.orders", "sales.*"]', "include is missing in [tables]"),
    ],
)
def test_what_is_missing_is_named(file: Path, line: str, words: str) -> None:
    file.write_text(SMALLEST.replace(line, ""))

    assert words in refusal(file).message


def test_a_missing_section_is_named(file: Path) -> None:
    file.write_text('name = "shop"\n[source]\nurl = "memory:a"\n[target]\nurl = "memory:b"\n')

    assert "section [tables] is missing" in refusal(file).message


def test_a_syntax_error_is_named_with_its_line(file: Path) -> None:
    file.write_text("name = shop\n")

    assert "line 1" in refusal(file).message


def test_a_missing_file_leads_to_init(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read") as refused:
        load(tmp_path / "absent.toml")

    assert "cdcrep init" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("text", "size"), [("67108864", 64 << 20), ('"64MiB"', 64 << 20), ('"64MB"', 64_000_000), ('"1 GiB"', 1 << 30)]
)
def test_sizes_are_numbers_or_texts_with_a_unit(file: Path, text: str, size: int) -> None:
    assert load(file, [f"max_batch_bytes={text}"]).pipeline.max_batch_bytes == size


@pytest.mark.parametrize(
    ("text", "rows", "seconds"),
    [("2", 200_000, 2.0), ("{ rows = 500 }", 500, 5.0), ("{ rows = 500, seconds = 0.5 }", 500, 0.5)],
)
def test_the_checkpoint_interval_is_seconds_or_a_table(file: Path, text: str, rows: int, seconds: float) -> None:
    pipeline = load(file, [f"checkpoint_interval={text}"]).pipeline

    assert (pipeline.checkpoint_rows, pipeline.heartbeat_seconds) == (rows, seconds)


def test_an_override_without_a_value_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="--set max_retries: no value"):
        load(file, ["max_retries"])


def url_config(source: str = "memory://h/shop", target: str = "memory://h/copy", **options: Any) -> Config:
    return from_arguments(source, target, include=["public.*"], **options)


def test_a_derived_name_is_stable_and_fit_for_a_slot() -> None:
    name = url_config("memory://h/Größe-Shop" + "x" * 80).name

    assert re.fullmatch(r"[a-z0-9_]{10,63}", name)
    assert name == url_config("memory://h/Größe-Shop" + "x" * 80).name


def test_a_derived_name_depends_on_the_databases_and_not_on_the_user() -> None:
    assert url_config("memory://anna:pw@h/shop").name == url_config("memory://ben@h/shop?connect_timeout=3").name
    assert url_config().name != url_config(target="memory://h/other").name
    assert url_config().name != url_config(source="memory://h2/shop").name


def test_a_given_name_wins() -> None:
    assert url_config(name="mine").name == "mine"


def test_options_can_be_set_beside_urls() -> None:
    config = url_config(overrides=["source.chunks=7", "tables.on_existing=keep", "max_retries=9"])

    assert config.source_options.chunks == 7  # type: ignore[attr-defined]  # the memory source's own
    assert (config.pipeline.on_existing, config.max_retries) == ("keep", 9)
