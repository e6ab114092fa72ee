"""The status object: its keys are documented, its lag is honest, its exit code fits monitoring."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from cdcrep import connector
from cdcrep.cli.status import lines
from cdcrep.config import Config, from_arguments
from cdcrep.errors import TransientError
from cdcrep.position import Position
from cdcrep.progress import Everyone
from cdcrep.status import Freshness, examine, exit_code, lag_seconds, recall_failure, remember_failure
from cdcrep.supervise import Supervisor
from cdcrep.testing.memory import Insert, SourceDatabase
from tests.unit import memory_program

PAGE = Path(__file__).parents[2] / "docs" / "status.md"


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Config:
    """A pipeline whose first copy is done."""
    monkeypatch.setattr(connector, "_find", memory_program.find)
    name = uuid4().hex
    database = SourceDatabase.at(f"memory://u:canary-status@h/{name}")
    database.create(memory_program.ORDERS)
    database.commit(Insert("public.orders", {"id": "1"}))
    config = from_arguments(
        f"memory://u:canary-status@h/{name}", f"memory://u:canary-status@h/{name}-copy", include=["public.*"]
    )
    replicate(config)
    return config


def replicate(config: Config) -> None:
    Supervisor(config, events=Everyone([]), until_current=True).run()


def commit(config: Config) -> None:
    config.open_source().database.commit(Insert("public.orders", {"id": "2"}))  # type: ignore[attr-defined]  # its own


def keys(status: Mapping[str, Any]) -> set[str]:
    nested = {f"{key}.{inner}" for key in ("lag", "source", "target") for inner in status[key]}
    return (status.keys() | nested) - {"lag", "source", "target"}


def test_every_key_is_documented(shop: Config) -> None:
    page = PAGE.read_text()

    assert [key for key in sorted(keys(examine(shop))) if f"`{key}`" not in page] == []


def test_a_stopped_pipeline_that_lacks_nothing_is_fine(shop: Config) -> None:
    status = examine(shop)

    assert (status["state"], status["pid"]) == ("stopped", None)
    assert status["lag"] == {"bytes": 0, "seconds": 0.0}
    assert exit_code(status) == 0


def test_a_stopped_pipeline_that_is_behind_is_not(shop: Config) -> None:
    commit(shop)

    status = examine(shop)

    assert status["lag"]["bytes"] > 0
    assert exit_code(status) == 1


def test_a_pipeline_that_failed_says_why(shop: Config) -> None:
    status = examine(shop, last_error={"message": "no space left", "at": None})

    assert (status["state"], exit_code(status)) == ("failed", 1)
    assert any("no space left" in line for line in lines(status))


def test_a_source_that_is_away_leaves_the_rest_readable(shop: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise TransientError("cannot reach memory://u:canary-status@h/shop")

    monkeypatch.setattr(shop.source_type, "status", away)

    status = examine(shop)

    assert status["source"]["error"] == "cannot reach memory://u:***@h/shop"
    assert status["lag"]["bytes"] is None
    assert status["tables"]["public.orders"]["rows_copied"] == 1
    assert exit_code(status) == 1


def test_no_secret_is_shown(shop: Config) -> None:
    status = examine(shop)

    assert "canary" not in str(status) + "".join(lines(status))


@pytest.mark.parametrize("state", ["streaming", "snapshotting", "starting", "deduplicating", "retrying", "failed"])
def test_a_running_process_that_does_not_replicate_is_not_fine(shop: Config, state: str) -> None:
    live = {"state": state, "started": 1.0, "last_progress": None, "last_error": None, "consecutive_failures": 0}

    status = examine(shop, live=live)

    assert status["started_at"] == "1970-01-01T00:00:01Z"
    assert exit_code(status) == (1 if state in {"retrying", "failed"} else 0)


@pytest.mark.parametrize(
    ("lag_bytes", "up_to", "seconds"),
    [(0, None, 0.0), (0, 10.0, 0.0), (5, 10.0, 90.0), (None, 10.0, 90.0), (5, None, None), (5, 200.0, 0.0)],
)
def test_lag_is_the_age_of_what_may_be_missing(lag_bytes: int | None, up_to: float | None, seconds: float) -> None:
    assert lag_seconds(lag_bytes, up_to, now=100.0) == seconds


def test_a_heartbeat_says_that_nothing_is_older_than_now() -> None:
    freshness = Freshness()

    freshness.applied(1, 1, Position("a"), 1000.0, 0.1)
    after_commit = freshness.up_to
    freshness.applied(1, 1, None, 2000.0, 0.1)
    after_piece = freshness.up_to
    freshness.applied(0, 0, Position("b"), None, 0.1)

    assert after_commit == after_piece == 1000.0
    assert freshness.up_to is not None
    assert freshness.up_to > 1_000_000


def test_the_last_error_is_kept_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "shop.failed"

    remember_failure(path, TransientError("lost memory://u:canary-status@h/x", hint="wait"))

    found = recall_failure(path)
    assert found is not None
    assert found["message"] == "lost memory://u:***@h/x (wait)"
    assert recall_failure(tmp_path / "absent") is None
    assert path.stat().st_mode & 0o077 == 0
