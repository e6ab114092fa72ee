"""Fixtures: real MySQL and MariaDB servers, and fresh databases on them.

A server comes, in this order, from the URL of a superuser in `$CDCREP_TEST_MYSQL_9_7`, `$CDCREP_TEST_MARIADB_10_11` or
`$CDCREP_TEST_MARIADB_11_8`, from programs on this machine (`.servers/`, where `make test` unpacks Debian's packages, or
the system's) or from a Docker engine. One that cannot be had skips its tests on a developer's machine and fails them
where `$CI` is set.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pymysql
import pytest

from cdcrep.demo.mysql_programs import give_away
from tests.servers.fix_postgres import unavailable
from tests.servers.mysql_binaries import RELEASES, NoServerError, Release, find_binaries
from tests.servers.mysql_database import MySQLDatabase, RunningMySQL
from tests.servers.mysql_server import START_SECONDS, MySQLServer, default_settings
from tests.servers.waiting import wait_until

DEFAULT_RELEASE: Final = os.environ.get("CDCREP_TEST_MYSQL", "mysql-9.7")
PASSWORD: Final = "secret"

every_mysql = pytest.mark.parametrize("mysql_release", list(RELEASES), indirect=True)
"""Run a test with MySQL and with every supported version of MariaDB as its `mysql_source`."""

every_mysql_target = pytest.mark.parametrize("mysql_target_release", list(RELEASES), indirect=True)
"""Run a test with MySQL and with every supported version of MariaDB as its `mysql_target`."""

StartMySQL = Callable[..., MySQLServer]


class SharedMySQLServers:
    """One running server per release for the whole session, started when first asked for."""

    def __init__(self) -> None:
        self._running: dict[str, RunningMySQL] = {}
        self._stack = ExitStack()

    def __call__(self, name: str) -> RunningMySQL:
        """Return the running server of a release (`mysql-9.7`), or skip (in CI: fail) the test."""
        if name not in self._running:
            try:
                self._running[name] = RunningMySQL(RELEASES[name], self._start(RELEASES[name]))
            except NoServerError as error:
                unavailable(str(error))
        return self._running[name]

    def close(self) -> None:
        """Stop every server that was started."""
        self._stack.close()

    def _start(self, release: Release) -> str:
        if dsn := os.environ.get(release.variable):
            return dsn
        try:
            binaries = find_binaries(release)
        except NoServerError:
            if (dsn := self._start_container(release)) is None:
                raise
            return dsn
        return self._stack.enter_context(MySQLServer(binaries)).url

    def _start_container(self, release: Release) -> str | None:
        with warnings.catch_warnings():
            # Not ours to mend: deprecations in the container library, and the socket it leaks when no engine answers.
            warnings.simplefilter("ignore")
            from docker.client import from_env
            from docker.errors import DockerException
            from testcontainers.core.container import DockerContainer

            try:
                from_env().ping()
            except DockerException:
                return None
            finally:
                gc.collect()
            options = " ".join(
                f"--{name.replace('_', '-')}={value}" for name, value in default_settings(release.is_mariadb).items()
            )
            container = DockerContainer(release.image).with_exposed_ports(3306).with_command(options)
            for variable in ("MYSQL_ROOT_PASSWORD", "MARIADB_ROOT_PASSWORD"):
                container = container.with_env(variable, PASSWORD)
            self._stack.enter_context(container)
            dsn = f"mysql://root:{PASSWORD}@{container.get_container_host_ip()}:{container.get_exposed_port(3306)}/"
        running = RunningMySQL(release, dsn)
        wait_until(lambda: _accepts_connections(running), 2 * START_SECONDS, f"{release.image} accepting connections")
        return dsn


def _accepts_connections(server: RunningMySQL) -> bool:
    try:
        server.connect().close()
    except pymysql.Error:
        return False
    return True


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[Callable[[str], RunningMySQL]]:
    """The shared server of a release: `mysql_server("mysql-9.7")`. Never stop it: other tests use it."""
    servers = SharedMySQLServers()
    yield servers
    servers.close()


@pytest.fixture
def own_mysql_server() -> Iterator[StartMySQL]:
    """Start servers of this test's own, to stop, crash or configure: `own_mysql_server("mysql-9.7", sql_mode="")`."""
    with ExitStack() as stack:

        def start(name: str = DEFAULT_RELEASE, **settings: str) -> MySQLServer:
            try:
                binaries = find_binaries(RELEASES[name])
            except NoServerError as error:
                unavailable(str(error))
            return stack.enter_context(MySQLServer(binaries, settings))

        yield start


@pytest.fixture
def tls_certificate() -> Iterator[Path]:
    """A directory with a self-signed `tls.crt` for localhost and its `tls.key`, which a server may read."""
    # Not below tmp_path, which the server's user cannot enter.
    directory = Path(tempfile.mkdtemp(prefix="cdcrep-tls-", dir="/tmp"))
    directory.chmod(0o755)
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost"]
    key, crt = directory / "tls.key", directory / "tls.crt"
    subprocess.run([*command, "-keyout", key, "-out", crt], check=True, capture_output=True)
    give_away(key)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def mysql_release(request: pytest.FixtureRequest) -> str:
    """The release of `mysql_source`; parametrised by `every_mysql`."""
    return str(getattr(request, "param", DEFAULT_RELEASE))


@pytest.fixture
def mysql_target_release(request: pytest.FixtureRequest, mysql_release: str) -> str:
    """The release of `mysql_target`: the source's unless parametrised."""
    return str(getattr(request, "param", mysql_release))


@pytest.fixture
def mysql_source(mysql_server: Callable[[str], RunningMySQL], mysql_release: str) -> Iterator[MySQLDatabase]:
    """A fresh database to replicate from."""
    database = MySQLDatabase.create(mysql_server(mysql_release))
    yield database
    database.drop()


@pytest.fixture
def mysql_target(mysql_server: Callable[[str], RunningMySQL], mysql_target_release: str) -> Iterator[MySQLDatabase]:
    """A fresh database to replicate into."""
    database = MySQLDatabase.create(mysql_server(mysql_target_release))
    yield database
    database.drop()


def pytest_report_header() -> list[str]:
    """Name the versions that the tests run with."""
    return [f"PyMySQL {pymysql.__version__}, {', '.join(RELEASES)}; {DEFAULT_RELEASE} unless a test says otherwise"]
