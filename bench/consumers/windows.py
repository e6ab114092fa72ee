"""Looks into running consumers' targets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from bench.clusters import Cluster
from bench.consumers.consumer import Consumer, Mark
from bench.waiting import BenchError
from cdcrep.config import load
from cdcrep.errors import TransientError
from cdcrep.service.client import ask_query
from cdcrep.service.places import socket_name

MARK_PAUSE_SECONDS: Final = 0.02

PAUSE_SECONDS: Final = 0.0005
"""Between two looks where a latency is measured."""

DUCKDB_PAUSE_SECONDS: Final = 0.002
"""The process that is measured answers the question itself: asked more often, it would have less time to apply."""


class PostgresWindow:
    """A session of its own on the target."""

    def __init__(self, cluster: Cluster, database: str) -> None:
        self._connection = cluster.connect(database)
        self._cursor = self._connection.cursor()

    def number(self, sql: str) -> int:
        row = self._cursor.execute(sql.encode(), prepare=True).fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    def close(self) -> None:
        self._connection.close()


class DuckDBWindow:
    """The socket behind `cdcrep query`: the running process itself answers, since it holds the file."""

    def __init__(self, config: Path) -> None:
        pipeline = load(config)
        self._socket = socket_name(pipeline.name, pipeline.target_identity)

    def number(self, sql: str) -> int:
        try:
            answer = ask_query(self._socket, sql)
        except TransientError:
            # It has not opened its target yet.
            return 0
        if answer is None or answer.data.num_rows == 0:
            return 0
        return int(answer.data.column(0)[0].as_py() or 0)

    def close(self) -> None:
        # Every question has a connection of its own.
        pass


def wait_for_mark(consumer: Consumer, mark: Mark, seconds: float) -> float:
    """Look until the mark is visible; returns when the first look that showed it was answered (`time.monotonic`).

    Raises:
        BenchError: not within `seconds`, or the consumer has ended.
    """
    window = consumer.window()
    assert window
    deadline = time.monotonic() + seconds
    try:
        while window.number(f"SELECT max(number) FROM {mark.table}") < mark.number:
            if time.monotonic() > deadline:
                raise BenchError(f"the end of the backlog was not in the target within {seconds:.0f} s")
            consumer.check_alive()
            time.sleep(MARK_PAUSE_SECONDS)
        return time.monotonic()
    finally:
        window.close()
