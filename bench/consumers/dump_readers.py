"""Consumers of a binary log that keep nothing: the raw dump limit, `mysql-replication`, and cdcrep's decoder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench import environments
from bench.consumers.consumer import Mark, Setting
from bench.consumers.reader import Reader
from bench.mysql_servers import MySQLDatabases
from bench.waiting import BenchError
from cdcrep_connectors.mysql.position import Place

MYSQL_REPLICATION = Path(__file__).parents[1] / "competitors" / "mysql_replication_loop.py"


class DumpReader(Reader):
    """Starts where the log ended when the backlog began."""

    def __init__(self, source: MySQLDatabases) -> None:
        super().__init__(source)
        self._server = source

    def set_up(self, setting: Setting) -> None:
        self._setting = setting

    def backlog_begins(self) -> None:
        self._place: Place = self._server.place()

    def _address(self) -> list[str]:
        reached = self._place.reached
        return [str(self._server.server.port), reached.file, str(reached.offset)]


class RawDump(DumpReader):
    """Empties the dump's socket at once: what is cheapest for this server."""

    name = "raw dump"

    def check(self, count: int) -> None:
        # Bytes: of them it knows nothing but that the mark was the last.
        pass

    def command(self, mark: Mark) -> Sequence[str]:
        return [sys.executable, "-m", "bench.consumers.dump_receiver", *self._address(), mark.token]


class Decoder(DumpReader):
    """Counts rows; the mark's is one of them."""

    def check(self, count: int) -> None:
        expected = self._setting.workload.changes + 1
        if count != expected:
            raise BenchError(f"it decoded {count:,} rows instead of {expected:,}")


class MySQLReplication(Decoder):
    """The pip package `mysql-replication`, in an environment of its own."""

    name = "mysql-replication"

    def set_up(self, setting: Setting) -> None:
        super().set_up(setting)
        self._python = environments.python_with("mysql_replication", environments.MYSQL_REPLICATION)

    def command(self, mark: Mark) -> Sequence[str]:
        return [str(self._python), str(MYSQL_REPLICATION), *self._address(), mark.token]


class CdcrepDecode(Decoder):
    """cdcrep's source without a target: typed Arrow columns that nobody takes."""

    name = "cdcrep decode only"

    def command(self, mark: Mark) -> Sequence[str]:
        program = [sys.executable, "-m", "bench.consumers.decoder"]
        url = self._server.url(self._setting.database)
        return [*program, url, self._place.position(), mark.table, *self._setting.workload.include]
