"""Runs the ordinary command line over databases in this process's memory, which it fills first.

    python -m tests.unit.memory_program run shop.toml

`memory:shop` holds `public.orders` with ROWS rows. In the environment CDCREP_TEST_COMMITS=n lets a thread commit n rows
a second, CDCREP_TEST_FAILURES=n lets the first n connections to the target fail, CDCREP_TEST_HANG=1 lets every apply
say "hanging" and hang, and CDCREP_TEST_DEATH=1 lets it raise what no connector may raise.
"""

from __future__ import annotations

import os
import sys
import threading
from itertools import count
from typing import Any

from cdcrep import connector
from cdcrep.changes import Batch
from cdcrep.connector import Checkpoint
from cdcrep.errors import ConfigError, TransientError
from cdcrep.table import Column, ColumnType, Kind, Table
from cdcrep.testing.memory import Insert, MemorySink, MemorySource, SourceDatabase

ROWS = 100
TEXT = ColumnType(Kind.TEXT, "text")
ORDERS = Table("public", "orders", (Column("id", TEXT), Column("note", TEXT)), ("id",), "memory")


class TroubledSink(MemorySink):
    """A memory sink that fails as the environment asks."""

    failures_left = int(os.environ.get("CDCREP_TEST_FAILURES", "0"))

    def open(self, owner: str = "", replacing: int | None = None) -> Checkpoint:
        if TroubledSink.failures_left > 0:
            TroubledSink.failures_left -= 1
            raise TransientError("the target at memory://cdc:canary-in-url@host/x is away", hint="wait")
        return super().open(owner, replacing)

    def apply(self, batch: Batch) -> None:
        if os.environ.get("CDCREP_TEST_HANG"):
            sys.stderr.write("hanging\n")
            sys.stderr.flush()
            threading.Event().wait()
        if os.environ.get("CDCREP_TEST_DEATH"):
            raise RuntimeError("canary-in-exception")
        super().apply(batch)


def find(group: str, url: str) -> type[Any]:
    """Know `memory:` only."""
    if not url.startswith("memory:"):
        raise ConfigError(f"no connector for {url.partition(':')[0]}")
    return MemorySource if group == "cdcrep.sources" else TroubledSink


def fill() -> SourceDatabase:
    """Create the table and its rows."""
    database = SourceDatabase.at("memory:shop")
    database.create(ORDERS)
    database.commit(*(Insert("public.orders", {"id": str(i), "note": "copied"}) for i in range(ROWS)))
    return database


def commit(database: SourceDatabase, per_second: float) -> None:
    """Commit rows for ever."""
    for i in count(ROWS):
        database.commit(Insert("public.orders", {"id": str(i), "note": "streamed"}))
        threading.Event().wait(1 / per_second)


if __name__ == "__main__":
    connector._find = find
    source = fill()
    if rate := os.environ.get("CDCREP_TEST_COMMITS"):
        threading.Thread(target=commit, args=(source, float(rate)), daemon=True).start()
    from cdcrep.cli import main

    main(sys.argv[1:])
