"""Writers that outlive crashes of their server: they come back and read what became of their last transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg

from tests.crash.workload import Writer
from tests.servers.database import Database


class PatientWriter(Writer):
    """A writer that connects again whenever its connection is lost."""

    def run(self) -> None:
        """Write until stopped; the ledger itself tells which transactions have happened."""
        try:
            while not self._write_until_lost():
                # Also after `stop`: only the server knows the outcome of the last transaction.
                self._stopping.wait(0.05)
        except BaseException as failure:
            self.failure = failure

    def _write_until_lost(self) -> bool:
        """Return True after an orderly end."""
        with contextlib.suppress(psycopg.OperationalError), self._database.connect() as connection:
            connection.execute("SET search_path = public")
            row = connection.execute(
                "SELECT coalesce(max(seq), 0) FROM ledger WHERE writer = %s", (self._number,)
            ).fetchone()
            assert row is not None
            self.committed = int(str(row[0]))
            connection.execute("INSERT INTO counters VALUES (%s, 0) ON CONFLICT DO NOTHING", (self._number,))
            while not self._stopping.wait(self._random.random() * 0.01):
                with contextlib.suppress(psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation):
                    self._transaction(connection)
            return True
        return False


@contextlib.contextmanager
def writing_patiently(database: Database, *, writers: int, seed: int) -> Iterator[list[Writer]]:
    """Keep writers going inside the block; the server must be up when it ends."""
    threads: list[Writer] = [PatientWriter(database, number, seed) for number in range(1, writers + 1)]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.stop()
