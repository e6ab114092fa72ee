"""The open database file: one DuckDB instance, a cursor per thread, let go of when idle if so configured."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb

from cdcrep.errors import SetupError
from cdcrep_connectors.duckdb.failures import translated
from cdcrep_connectors.duckdb.options import DuckDBOptions

VACUUM_TASKS: Final = "2"
"""Row groups are rewritten without their deleted rows at a checkpoint, at most so many tasks each time: enough to keep
files from growing, while unlimited they let commits on large tables wait for 10 seconds and more."""

START_LIMIT: Final = 64 << 20
"""DuckDB keeps what it has read and written up to its limit, needed or not. With twice as much, a stream of inserts is
quicker by a third, which is faster than sources send, and a copy by up to a tenth; it gets more where it runs out."""

BASE_LIMIT: Final = 88 << 20
BYTES_PER_ROW: Final = 9
"""Deleting rows all over a table costs DuckDB 16 KB per 2,048 rows until the next checkpoint, which it cannot move to
disk: 8 bytes for each row of the table, and some for what stands around them."""

MEMORY_PER_WIDEST: Final = 6
MEMORY_PER_WIDE: Final = 3
WIDE_BASE: Final = 64 << 20
"""Measured with 1 to 100 MB values: DuckDB holds the widest six times, and three times the others of its statement."""

LARGEST_LIMIT: Final = max(START_LIMIT, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)
"""A quarter of the machine's memory: more is the user's decision."""

_grown: Final[dict[Path, int]] = {}
"""By file, what was granted in this process where memory ran out: the next instance begins with it."""

NO_OTHER_FILES: Final = "SET enable_external_access = false"
"""No statement may reach another file or the network: `query` runs what users type. Cannot be taken back."""


class Database:
    """A DuckDB file of this process; thread-safe.

    `generation` counts how often the file was opened: what was read from it before may have been changed by others
    since when the number has grown.
    """

    def __init__(self, options: DuckDBOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._instance: duckdb.DuckDBPyConnection | None = None
        self._users = 0
        self._timer: threading.Timer | None = None
        self.generation = 0
        self._adapts = options.memory_limit == "auto"
        self._limit = START_LIMIT

    @contextmanager
    def use(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Keep the file open for the time of the block; yields a connection of the block's own."""
        connection = self.acquire()
        try:
            yield connection
        finally:
            self.release(connection)

    def acquire(self) -> duckdb.DuckDBPyConnection:
        """Return a new connection; the file stays open until it is handed to `release`."""
        with self._lock:
            self._stop_timer()
            if self._instance is None:
                self._instance = self._open()
                self.generation += 1
            connection = self._instance.cursor()
            self._users += 1
            return connection

    def release(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Close a connection of `acquire`; what it did not commit is rolled back."""
        connection.close()
        with self._lock:
            self._users -= 1
            if self._users == 0 and not self._options.hold_file and self._instance is not None:
                self._timer = threading.Timer(self._options.idle_seconds, self._let_go)
                self._timer.daemon = True
                self._timer.start()

    def provide(self, connection: duckdb.DuckDBPyConnection, rows: int) -> None:
        """Let DuckDB have the memory to delete rows all over a table of so many, unless the user set a limit."""
        self._grant(connection, BASE_LIMIT + BYTES_PER_ROW * rows)

    def provide_for_values(self, connection: duckdb.DuckDBPyConnection, widest: int, all_wide: int) -> None:
        """Let DuckDB have the memory for a statement with wide values: bytes of the widest, and of all of them."""
        others = MEMORY_PER_WIDE * (all_wide - widest)
        self._grant(connection, min(WIDE_BASE + MEMORY_PER_WIDEST * widest + others, LARGEST_LIMIT))

    def grow(self) -> bool:
        """Grant twice the memory after DuckDB ran out of it; False: the user set a limit, or the largest is reached.

        Wide rows need it: DuckDB holds some thousand of them at a time, and values of many megabytes several times.
        """
        with self._lock:
            if not self._adapts or self._instance is None or self._limit >= LARGEST_LIMIT:
                return False
            self._limit = min(2 * self._limit, LARGEST_LIMIT)
            self._instance.execute(f"SET memory_limit = '{self._limit}B'")
            _grown[self._options.path] = self._limit
            return True

    def close(self) -> None:
        """Close the file; idempotent. Connections that are still in use end with their next statement."""
        with self._lock:
            self._stop_timer()
            self._close_instance()

    @property
    def held(self) -> bool:
        """Whether the file is open in this process."""
        with self._lock:
            return self._instance is not None

    def _grant(self, connection: duckdb.DuckDBPyConnection, needed: int) -> None:
        with self._lock:
            if self._adapts and needed > self._limit:
                connection.execute(f"SET memory_limit = '{needed}B'")
                self._limit = needed

    def _let_go(self) -> None:
        with self._lock:
            if self._timer is threading.current_thread() and self._users == 0:
                self._timer = None
                self._close_instance()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_instance(self) -> None:
        if self._instance is not None:
            self._instance.close()
            self._instance = None

    def _open(self) -> duckdb.DuckDBPyConnection:
        path = self._options.path
        if not path.parent.is_dir():
            raise SetupError(f"directory {path.parent} does not exist", hint=f"mkdir -p {path.parent}")
        self._limit = max(START_LIMIT, _grown.get(path, 0))
        with translated(f"opening {path}"):
            while True:
                try:
                    instance = self._connect()
                except duckdb.OutOfMemoryException:
                    # Replaying the log of a process that died takes as much memory as writing it did.
                    if not self._adapts or self._limit >= LARGEST_LIMIT:
                        raise
                    self._limit = min(2 * self._limit, LARGEST_LIMIT)
                else:
                    instance.execute(NO_OTHER_FILES)
                    return instance

    def _connect(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(
            str(self._options.path),
            config={
                "memory_limit": f"{self._limit}B" if self._adapts else self._options.memory_limit,
                "threads": str(self._options.threads),
                "temp_directory": str(self._options.spill_directory),
                "checkpoint_threshold": self._options.checkpoint_threshold,
                # Tables have no order; keeping one would buffer whole chunks.
                "preserve_insertion_order": "false",
                "max_vacuum_tasks": VACUUM_TASKS,
            },
        )
