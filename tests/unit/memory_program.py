"""Runs the ordinary command line over databases in this process's memory, which it fills first.

    python -m tests.unit.memory_program run shop.toml

`memory:shop` holds `public.orders` with ROWS rows. In the environment CDCREP_TEST_COMMITS=n lets a thread commit n rows
a second, CDCREP_TEST_FAILURES=n lets the first n connections to the target fail, CDCREP_TEST_HANG=1 lets every apply
say "hanging" and hang, CDCREP_TEST_DEATH=1 lets it raise what no connector may raise, and CDCREP_TEST_FENCE=1 lets it
find that another process has taken over. CDCREP_TEST_CLOSE=stream, source or sink lets that say "closing" and hang when
it is closed; tidying up may then take CDCREP_TEST_TIDYING seconds.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any

from cdcrep import connector, supervise
from cdcrep.changes import Batch
from cdcrep.connector import Checkpoint, Copied
from cdcrep.errors import ConfigError, DivergedError, TransientError
from cdcrep.position import Position
from cdcrep.table import Column, ColumnType, Kind, Table, TableId
from cdcrep.testing.memory import Insert, MemorySink, MemorySource, SourceDatabase
from cdcrep.tidying import Tidying

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
            hang("hanging")
        if os.environ.get("CDCREP_TEST_DEATH"):
            raise RuntimeError("canary-in-exception")
        if os.environ.get("CDCREP_TEST_FENCE"):
            raise DivergedError("another process has taken over", hint="leave it alone")
        super().apply(batch)

    def close(self) -> None:
        hang_in("sink")
        super().close()


class TroubledSource(MemorySource):
    """A memory source whose closing hangs as the environment asks."""

    def stream(
        self, after: Position, copied: Mapping[TableId, Copied], until: Position | None = None
    ) -> Iterator[Batch]:
        yield from super().stream(after, copied, until)
        hang_in("stream")

    def close(self) -> None:
        hang_in("source")
        super().close()


def hang(word: str) -> None:
    """Say so and never return."""
    sys.stderr.write(f"{word}\n")
    sys.stderr.flush()
    threading.Event().wait()


def hang_in(place: str) -> None:
    """Hang where the environment asks for it."""
    if os.environ.get("CDCREP_TEST_CLOSE") == place:
        hang("closing")


def find(group: str, url: str) -> type[Any]:
    """Know `memory:` only."""
    if not url.startswith("memory:"):
        raise ConfigError(f"no connector for {url.partition(':')[0]}")
    return TroubledSource if group == "cdcrep.sources" else TroubledSink


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
    if seconds := os.environ.get("CDCREP_TEST_TIDYING"):
        supervise.Supervisor = partial(supervise.Supervisor, tidying=Tidying(float(seconds)))  # type: ignore[assignment,misc]
    source = fill()
    if rate := os.environ.get("CDCREP_TEST_COMMITS"):
        threading.Thread(target=commit, args=(source, float(rate)), daemon=True).start()
    from cdcrep.cli import main

    main(sys.argv[1:])
