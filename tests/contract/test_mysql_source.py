"""The MySQL and MariaDB source keeps the contract."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdcrep.errors import DivergedError
from cdcrep.testing.contract import SourceContract
from cdcrep.testing.source_contract import Following, event, read
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
    @pytest.fixture
    def origin(self, mysql_server: Callable[[str], RunningMySQL], mysql_release: str) -> MySQLOrigin:
        return MySQLOrigin(mysql_server(mysql_release))

    def test_a_position_before_what_is_kept_is_refused(self, origin: MySQLOrigin, following: Following) -> None:  # type: ignore[override]
        # Nothing is kept for us and confirmed: the server removes its logs when it wants to.
        before = following.position
        origin.commit(event(10))
        wait_until(lambda: purged(origin.server), 60.0, "older logs gone")
        following.restart()

        with pytest.raises(DivergedError):
            read(following.source, before, following.copied)

    def test_without_its_place_in_the_log_it_does_not_start(self, origin: MySQLOrigin, following: Following) -> None:  # type: ignore[override]
        # There is no such place at the server: tearing down leaves it as it was.
        following.restart()
        assert following.source.tear_down() == []
        following.restart()

        assert read(following.source, following.position, following.copied) == []
