"""A replica: a second server of the same kind, with GTIDs and its release's defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pymysql

from bench.consumers.consumer import Mark, Setting, Window
from bench.consumers.windows import PAUSE_SECONDS, wait_for_mark
from bench.mysql_servers import MySQLDatabases, MySQLServers
from bench.tables import Contents, Digest
from bench.waiting import BenchError

CATCH_UP_SECONDS: Final = 600


class MySQLWindow:
    """A session of its own on a server."""

    def __init__(self, server: MySQLDatabases) -> None:
        self._connection: pymysql.Connection[Any] = server.connect()

    def number(self, sql: str) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            row = cursor.fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    def close(self) -> None:
        self._connection.close()


class Replica:
    """Replicates the whole source; its first start begins with the log's beginning."""

    name = "native replica"
    pause_seconds = PAUSE_SECONDS

    def __init__(self, servers: MySQLServers) -> None:
        self._source, self._replica = servers.source, servers.replica
        self._word = "SLAVE" if self._source.is_mariadb else "REPLICA"

    def set_up(self, setting: Setting) -> None:  # noqa: ARG002 - it gets every database
        port = self._source.server.port
        if not self._replica.execute("", f"SHOW {self._word} STATUS"):
            self._replica.execute(
                "",
                f"CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'root', "
                "MASTER_USE_GTID = slave_pos"
                if self._source.is_mariadb
                else f"CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, "
                "SOURCE_USER = 'root', SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1",
            )
        self._replica.execute("", f"START {self._word}")
        gtids = str(self._source.place().reached.gtids)
        function = "MASTER_GTID_WAIT" if self._source.is_mariadb else "WAIT_FOR_EXECUTED_GTID_SET"
        ((late,),) = self._replica.execute("", f"SELECT {function}('{gtids}', {CATCH_UP_SECONDS})")
        self.stop()
        if late:
            raise BenchError(f"the replica did not have the tables within {CATCH_UP_SECONDS} s")

    def backlog_begins(self) -> None:
        pass

    def start(self, mark: Mark) -> int | None:  # noqa: ARG002 - it goes on for ever
        self._replica.execute("", f"START {self._word}")
        return None

    def streaming(self) -> bool:
        return self._source.slot_is_active("")

    def wait(self, mark: Mark, seconds: float) -> float:
        return wait_for_mark(self, mark, seconds)

    def check_alive(self) -> None:
        # An error stops its applier; the deadline is enough.
        pass

    def window(self) -> Window:
        return MySQLWindow(self._replica)

    def stop(self) -> None:
        self._replica.execute("", f"STOP {self._word}")
        self._source.end_stream("")

    def digest(self, tables: Sequence[Contents]) -> Digest:
        return self._replica.digest("", tables)

    def tear_down(self) -> None:
        # The next workload's set-up catches up with what is dropped.
        pass
