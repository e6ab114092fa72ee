"""A copy of a MySQL or MariaDB table, held as rows by key, that is interrupted and goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from cdcrep.connector import Chunk, Copied
from cdcrep.table import Table
from cdcrep_connectors.mysql.snapshot import MySQLSnapshot
from cdcrep_connectors.mysql.source import MySQLSource
from tests.integration.mysql_following import source_of
from tests.servers.mysql_database import MySQLDatabase

Key = tuple[Any, ...]
Row = tuple[Any, ...]


@dataclass
class InterruptedCopy:
    """One table's copy; `goes_on` does under another view what the engine does."""

    database: MySQLDatabase
    source: MySQLSource
    table: Table
    copied: Copied
    rows: dict[Key, Row] = field(default_factory=dict)
    read: dict[str, list[Key]] = field(default_factory=dict)
    """The keys of the rows of each chunk that was read last."""

    @classmethod
    def begun(
        cls, database: MySQLDatabase, source: MySQLSource, done: Collection[int] | None = None
    ) -> InterruptedCopy:
        """Copy some of the chunks of the only table, by default all of them."""
        (table,) = source.tables()
        with closing(source.snapshot()) as snapshot:
            chunks = snapshot.chunks(table, None)
            copy = cls(database, source, table, Copied(snapshot.position, snapshot=snapshot.note(table)))
            assert not any(chunk.overlapping for chunk in chunks)
            copy._load(snapshot, [chunk for i, chunk in enumerate(chunks) if done is None or i in done])
        return copy

    def goes_on(
        self,
        meanwhile: Callable[[], None] = lambda: None,
        only: Callable[[Chunk], bool] = lambda _: True,
    ) -> Sequence[Row]:
        """Complete the copy, or load only some of the chunks; return the table's rows at the view's moment.

        `meanwhile` is called when the view is open.
        """
        with closing(self.source.snapshot({self.table.id: self.copied})) as snapshot:
            expected = self._present()
            meanwhile()
            if not (chunks := snapshot.chunks(self.table, self.copied)):
                # Nothing has changed: the copy is what it is, and shows what it shows.
                self.read = {}
                return expected
            if not all(chunk.overlapping for chunk in chunks):
                self.rows, self.copied = {}, Copied(snapshot.position, snapshot=snapshot.note(self.table))
            self.copied = replace(self.copied, position=snapshot.position)
            self._load(snapshot, [chunk for chunk in chunks if only(chunk)])
            if all(map(only, chunks)):
                kept = {
                    tuple(row.values()) for batch in snapshot.keys(self.table)["arrow"]() for row in batch.to_pylist()
                }
                self.rows = {key: row for key, row in self.rows.items() if key in kept}
        return expected

    def changed(self) -> list[Key]:
        """Return the keys of the rows that were read again because they changed."""
        return sorted(key for name, keys in self.read.items() if name.startswith("changes") for key in keys)

    def _load(self, snapshot: MySQLSnapshot, chunks: Sequence[Chunk]) -> None:
        self.read = {}
        for chunk in chunks:
            rows = [tuple(row.values()) for batch in snapshot.read(chunk)["arrow"]() for row in batch.to_pylist()]
            found = {self._key(row): row for row in rows}
            assert len(found) == len(rows)
            assert chunk.overlapping or not found.keys() & self.rows.keys()
            self.read[chunk.name] = list(found)
            self.rows.update(found)
        self.copied = replace(self.copied, chunks=self.copied.chunks | self.read.keys())
        assert max(Counter(key for keys in self.read.values() for key in keys).values(), default=0) <= 1

    def _key(self, row: Row) -> Key:
        return tuple(row[i] for i in self.table.key_positions) or row

    def _present(self) -> Sequence[Row]:
        """Read the table on another view."""
        with closing(source_of(self.database)) as other, closing(other.snapshot()) as snapshot:
            return sorted(
                tuple(row.values())
                for chunk in snapshot.chunks(self.table, None)
                for batch in snapshot.read(chunk)["arrow"]()
                for row in batch.to_pylist()
            )
