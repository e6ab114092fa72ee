"""The open database file: one DuckDB instance, a cursor per thread, let go of when idle if so configured."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import duckdb

from cdcrep.errors import SetupError
from cdcrep_connectors.duckdb.failures import translated
from cdcrep_connectors.duckdb.options import DuckDBOptions

INSTANCE_LIMITS: Final = "SET enable_external_access = false; SET lock_configuration = true"
"""No statement may reach another file, the network or a setting: `query` runs what users type."""


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
        with translated(f"opening {path}"):
            instance = duckdb.connect(
                str(path),
                config={
                    "memory_limit": self._options.memory_limit,
                    "threads": str(self._options.threads),
                    "temp_directory": str(self._options.spill_directory),
                    "checkpoint_threshold": self._options.checkpoint_threshold,
                    # Tables have no order; keeping one would buffer whole chunks.
                    "preserve_insertion_order": "false",
                },
            )
            # A second sink of this process on the same file finds the limits in force.
            with suppress(duckdb.InvalidInputException):
                instance.execute(INSTANCE_LIMITS)
            return instance
