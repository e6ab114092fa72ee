"""The MySQL and MariaDB source keeps the contract."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdcrep.testing.contract import Origin, SourceContract
from tests.contract.mysql import MySQLOrigin
from tests.servers.mysql_binaries import RELEASES
from tests.servers.mysql_database import RunningMySQL
from tests.servers.waiting import wait_until


@pytest.fixture(params=list(RELEASES))
def mysql_release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def purged(server: RunningMySQL) -> bool:
    """Remove all logs but a new one; a server keeps those that it is still sending."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL VARIABLES LIKE 'slave_connections_needed_for_purge'")
        if cursor.fetchall():
            cursor.execute("SET GLOBAL slave_connections_needed_for_purge = 0")
        cursor.execute("FLUSH BINARY LOGS")
        cursor.execute("SHOW BINARY LOGS")
        newest = cursor.fetchall()[-1][0]
        cursor.execute(f"PURGE BINARY LOGS TO '{newest}'")
        cursor.execute("SHOW BINARY LOGS")
        return bool(cursor.fetchall()[0][0] == newest)


class TestMySQLSource(SourceContract):
    keeps_log = False
    truncate_can_be_rolled_back = False

    @pytest.fixture
    def origin(self, mysql_server: Callable[[str], RunningMySQL], mysql_release: str) -> MySQLOrigin:
        return MySQLOrigin(mysql_server(mysql_release))

    def forget_log(self, origin: Origin) -> None:
        assert isinstance(origin, MySQLOrigin)
        wait_until(lambda: purged(origin.server), 60.0, "older logs gone")
