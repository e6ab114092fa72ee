"""PostgreSQL's own logical replication, with the defaults of CREATE SUBSCRIPTION."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.clusters import Clusters
from bench.consumers.consumer import Mark, Setting, Window
from bench.consumers.windows import PAUSE_SECONDS, PostgresWindow, wait_for_mark
from bench.tables import Contents, Digest
from bench.waiting import wait_for

NAME: Final = "bench_native"


class Subscription:
    """An apply worker in the target server."""

    name = "native subscription"
    pause_seconds = PAUSE_SECONDS

    def __init__(self, clusters: Clusters) -> None:
        self._source, self._target = clusters.source, clusters.target

    def set_up(self, setting: Setting) -> None:
        self._source_database, self._database = setting.database, f"{setting.database}_native"
        tables = ", ".join(setting.workload.include)
        self._source.execute(self._source_database, f"CREATE PUBLICATION {NAME} FOR TABLE {tables}")
        self._target.create_database(self._database)
        self._target.execute(self._database, *setting.workload.schema)
        self._target.execute(
            self._database,
            f"CREATE SUBSCRIPTION {NAME} CONNECTION '{self._source.dsn(self._source_database)}' PUBLICATION {NAME}",
        )
        wait_for(self._is_copied, "the native subscription has copied its tables", seconds=600)
        self.stop()
        self._target.settle(self._database)

    def backlog_begins(self) -> None:
        pass

    def start(self, mark: Mark) -> int | None:  # noqa: ARG002 - it goes on for ever
        self._target.execute(self._database, f"ALTER SUBSCRIPTION {NAME} ENABLE")
        return None

    def streaming(self) -> bool:
        return self._source.slot_is_active(NAME)

    def wait(self, mark: Mark, seconds: float) -> float:
        return wait_for_mark(self, mark, seconds)

    def check_alive(self) -> None:
        # The launcher restarts the worker; the deadline is enough.
        pass

    def window(self) -> Window:
        return PostgresWindow(self._target, self._database)

    def stop(self) -> None:
        self._target.execute(self._database, f"ALTER SUBSCRIPTION {NAME} DISABLE")
        self._source.end_stream(NAME)

    def digest(self, tables: Sequence[Contents]) -> Digest:
        return self._target.digest(self._database, tables)

    def tear_down(self) -> None:
        if not hasattr(self, "_database"):
            return
        exists = f"SELECT count(*) FROM pg_subscription WHERE subname = '{NAME}'"
        if self._target.execute("postgres", exists)[0][0]:
            # Drops the slot at the source, too.
            self._target.execute(self._database, f"DROP SUBSCRIPTION {NAME}")
        self._target.drop_database(self._database)

    def _is_copied(self) -> bool:
        states = self._target.execute(self._database, "SELECT srsubstate::text FROM pg_subscription_rel")
        return all(state == "r" for (state,) in states)
