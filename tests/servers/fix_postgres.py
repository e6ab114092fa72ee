"""Fixtures: real PostgreSQL servers of every supported major version, and fresh databases on them.

A server of a major version comes, in this order, from the connection string in `$CDCREP_TEST_POSTGRES_<major>`, from
binaries on this machine (`$PG_BIN_DIR`, `.servers/`, Debian's packages) or from a Docker engine. One that cannot be had
skips its tests on a developer's machine and fails them where `$CI` is set.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import psycopg
import pytest

from cdcrep.demo.postgres_server import PostgresServer, find_binaries
from cdcrep.errors import SetupError
from tests.servers.database import Database, RunningServer
from tests.servers.install_postgres import RELEASES

MAJORS: Final = tuple(RELEASES)
DEFAULT_MAJOR: Final = int(os.environ.get("CDCREP_TEST_MAJOR", "17"))

SETTINGS: Final = {
    "fsync": "off",
    "wal_level": "logical",
    "max_connections": "200",
    "max_wal_senders": "60",
    "max_replication_slots": "60",
    "max_prepared_transactions": "20",
    "shared_buffers": "64MB",
}

every_major = pytest.mark.parametrize("postgres_major", MAJORS, indirect=True)
"""Run a test once per supported major version of its `source_database`."""

oldest_and_newest_target = pytest.mark.parametrize("target_major", [MAJORS[0], MAJORS[-1]], indirect=True)
"""Run a test with the oldest and the newest supported version as its `target_database`."""

StartServer = Callable[..., PostgresServer]


def unavailable(reason: str) -> None:
    """Skip the test because a server is missing; where `$CI` is set that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class SharedServers:
    """One running server per major version for the whole session, started when first asked for."""

    def __init__(self) -> None:
        self._running: dict[int, RunningServer] = {}
        self._stack = ExitStack()

    def __call__(self, major: int) -> RunningServer:
        """Return the running server of this major version, or skip (in CI: fail) the test."""
        if major not in self._running:
            try:
                self._running[major] = RunningServer(major, self._start(major))
            except SetupError as error:
                unavailable(str(error))
        return self._running[major]

    def close(self) -> None:
        """Stop every server that was started."""
        self._stack.close()

    def _start(self, major: int) -> str:
        if dsn := os.environ.get(f"CDCREP_TEST_POSTGRES_{major}"):
            return dsn
        try:
            binaries = find_binaries(major)
        except SetupError:
            if (dsn := self._start_container(major)) is None:
                raise
            return dsn
        return self._stack.enter_context(PostgresServer(binaries, settings=SETTINGS)).dsn

    def _start_container(self, major: int) -> str | None:
        with warnings.catch_warnings():
            # Not ours to mend: deprecations in the container library, and the socket it leaks when no engine answers.
            warnings.simplefilter("ignore")
            from docker.client import from_env
            from docker.errors import DockerException
            from testcontainers.postgres import PostgresContainer

            try:
                from_env().ping()
            except DockerException:
                return None
            finally:
                gc.collect()
            options = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
            container = PostgresContainer(f"postgres:{major}", username="postgres", driver=None)
            self._stack.enter_context(container.with_command(f"postgres {options}"))
            return str(container.get_connection_url())


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Callable[[int], RunningServer]]:
    """The shared server of a major version: `postgres_server(17)`. Never stop it: other tests use it."""
    servers = SharedServers()
    yield servers
    servers.close()


@pytest.fixture
def own_postgres_server() -> Iterator[StartServer]:
    """Start servers of this test's own, to stop, crash or configure: `own_postgres_server(17, wal_level="replica")`."""
    with ExitStack() as stack:

        def start(major: int = DEFAULT_MAJOR, *, password: str | None = None, **settings: str) -> PostgresServer:
            try:
                binaries = find_binaries(major)
            except SetupError as error:
                unavailable(str(error))
            server = PostgresServer(binaries, settings={**SETTINGS, **settings}, password=password)
            return stack.enter_context(server)

        yield start


@pytest.fixture
def postgres_major(request: pytest.FixtureRequest) -> int:
    """The major version of `source_database`; parametrised by `every_major`."""
    return int(getattr(request, "param", DEFAULT_MAJOR))


@pytest.fixture
def target_major(request: pytest.FixtureRequest, postgres_major: int) -> int:
    """The major version of `target_database`: the source's unless parametrised."""
    return int(getattr(request, "param", postgres_major))


@pytest.fixture
def source_database(postgres_server: Callable[[int], RunningServer], postgres_major: int) -> Iterator[Database]:
    """A fresh database to replicate from."""
    database = Database.create(postgres_server(postgres_major))
    yield database
    database.drop()


@pytest.fixture
def target_database(postgres_server: Callable[[int], RunningServer], target_major: int) -> Iterator[Database]:
    """A fresh database to replicate into."""
    database = Database.create(postgres_server(target_major))
    yield database
    database.drop()


def pytest_report_header() -> list[str]:
    """Name the versions that the tests run with."""
    libpq = f"{psycopg.pq.version() // 10000}.{psycopg.pq.version() % 10000}"
    return [f"psycopg {psycopg.__version__}, libpq {libpq}, PostgreSQL {DEFAULT_MAJOR} unless a test says otherwise"]
