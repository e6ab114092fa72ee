"""Collects the keys of the rows that a stretch of the log changed, as columns and within bounds. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import pyarrow as pa

from cdcrep.changes import DELETE, Batch, Changes
from cdcrep.table import Table, TableId

MOST_KEYS: Final = 2_000_000
"""Keys of one table: to look more of them up takes as long as to read a large table from its beginning to its end."""

MOST_BYTES: Final = 64 << 20
"""Of all keys in memory."""

PENDING_ROWS: Final = 200_000
"""Rows that may wait to be told from those before."""


class ChangedKeys:
    """The keys that rows of one table had before or after changes, each once."""

    def __init__(self) -> None:
        self.table: Table | None = None
        """The shape that the changes had; None: there were none."""
        self.problem = ""
        """Why the keys are not known; completes "the copy begins again, because"."""
        self._distinct: pa.Table | None = None
        self._pending: list[pa.Table] = []
        self._pending_rows = 0

    def add(self, changes: Changes) -> None:
        """Take the keys of some changes, also those before: where rows only went away, there is something to prune.

        Where the table was emptied between them, the rows it has now are among those inserted since.
        """
        if self.problem:
            return
        if self.table is not None and not self.table.same_shape(changes.table):
            self.give_up("its columns have changed since")
            return
        self.table = changes.table
        after = changes.new.select(list(changes.table.key_positions))
        self._append(after.filter(pa.array(changes.operations != DELETE)))
        if changes.old is not None and changes.old_present is not None:
            self._append(changes.old.filter(pa.array(changes.old_present)))
        if self._pending_rows > max(PENDING_ROWS, self._distinct.num_rows if self._distinct is not None else 0):
            self.settle()

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return sum(part.nbytes for part in [*self._pending, *([] if self._distinct is None else [self._distinct])])

    def settle(self) -> None:
        """Tell what is pending from what was there."""
        if not self._pending:
            return
        parts = [*([] if self._distinct is None else [self._distinct]), *self._pending]
        self._pending, self._pending_rows = [], 0
        everything = pa.concat_tables(parts, promote_options="permissive")
        self._distinct = everything.group_by(everything.column_names).aggregate([]).combine_chunks()
        if self._distinct.num_rows > MOST_KEYS:
            self.give_up(f"more than {MOST_KEYS:,} of its rows have changed since")

    def give_up(self, problem: str) -> None:
        """Forget the keys, for a reason."""
        self.problem = problem
        self._distinct, self._pending, self._pending_rows = None, [], 0

    def ascending(self) -> pa.Table | None:
        """Return the keys in an order much like the index's, none if the table was only emptied; None: no change."""
        self.settle()
        if self.table is None or self.problem:
            return None
        if self._distinct is None:
            return pa.table({name: pa.nulls(0) for name in self.table.key})
        return self._distinct.sort_by([(name, "ascending") for name in self._distinct.column_names]).combine_chunks()

    def _append(self, keys: pa.Table) -> None:
        if keys.num_rows:
            self._pending.append(keys)
            self._pending_rows += keys.num_rows


def changed_keys(batches: Iterable[Batch], tables: Collection[TableId]) -> dict[TableId, ChangedKeys]:
    """Collect the keys of all changes of some tables; where they become too many, the table with the most gives up."""
    found = {table: ChangedKeys() for table in tables}
    for batch in batches:
        for changes in batch.changes:
            if (keys := found.get(changes.table.id)) is not None:
                keys.add(changes)
        if _size(found) > MOST_BYTES:
            for keys in found.values():
                keys.settle()
            while _size(found) > MOST_BYTES:
                largest = max(found.values(), key=lambda keys: keys.size)
                largest.give_up(f"the keys of rows that have changed since take more than {MOST_BYTES >> 20} MiB")
    return found


def _size(found: dict[TableId, ChangedKeys]) -> int:
    return sum(keys.size for keys in found.values())
