"""What every test gets: server fixtures, one seed for all randomness, and a mark on tests that need servers."""

from __future__ import annotations

from collections.abc import Generator

import coverage
import hypothesis
import pytest

pytest_plugins = ["tests.servers.fix_postgres", "tests.servers.fix_mysql", "tests.servers.fix_fault_proxy"]

SERVER_FIXTURES = {"postgres_server", "own_postgres_server", "mysql_server", "own_mysql_server"}

# No deadline per example: the machine may be busy with servers.
hypothesis.settings.register_profile("cdcrep", deadline=None, print_blob=True)
hypothesis.settings.load_profile("cdcrep")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The run's printed seed."""
    return int(request.config.getoption("randomly_seed", default=0) or 0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Run tests that are marked as unmeasured without the coverage tool."""
    measuring = coverage.Coverage.current() if item.get_closest_marker("unmeasured") else None
    if measuring is None:
        return (yield)
    measuring.stop()
    try:
        return (yield)
    finally:
        measuring.start()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that ask for a server; let the printed seed of the run also be hypothesis's seed."""
    seed = config.getoption("randomly_seed", default=None)
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        if SERVER_FIXTURES.intersection(item.fixturenames):
            item.add_marker(pytest.mark.servers)
        if isinstance(seed, int) and hypothesis.is_hypothesis_test(item.obj):
            hypothesis.seed(seed)(item.function)
