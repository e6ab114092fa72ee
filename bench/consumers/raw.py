"""The raw receive limit: the server's own sending speed to a reader that decodes and writes nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from bench.clusters import Clusters
from bench.consumers.consumer import Mark, Setting
from bench.consumers.reader import Reader

SLOT: Final = "bench_raw"


class RawReceive(Reader):
    """Empties a slot's socket, rests, and empties it again: what is cheapest for the server."""

    name = "raw receive"
    slot = SLOT

    def __init__(self, clusters: Clusters) -> None:
        super().__init__(clusters.source)
        self._cluster = clusters.source

    def set_up(self, setting: Setting) -> None:
        self._database = setting.database
        self._cluster.execute(
            self._database, f"CREATE PUBLICATION {SLOT} FOR TABLE {', '.join(setting.workload.include)}"
        )

    def backlog_begins(self) -> None:
        # A slot that never confirms starts over each time: a new one for each backlog.
        self._cluster.execute(
            self._database,
            f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{SLOT}'",
            f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')",
        )

    def check(self, count: int) -> None:
        # Bytes: of them it knows nothing but that the mark was the last.
        pass

    def command(self, mark: Mark) -> Sequence[str]:
        program = [sys.executable, "-m", "bench.consumers.receiver"]
        return [*program, self._cluster.dsn(self._database), SLOT, SLOT, mark.token]
