"""Fixtures of the crash tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The run's printed seed."""
    return int(request.config.getoption("randomly_seed", default=0) or 0)
