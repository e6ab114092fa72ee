"""Decides how copies that were interrupted are completed: from what the log says has changed since they began.

The log is read once for all of them, from the position of the view that they began under to that of the present view.
What committed a little later may be among it: rows are read again as the view shows them, so that more keys than
necessary do no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import structlog

from cdcrep.changes import Batch
from cdcrep.connector import Copied
from cdcrep.errors import CdcrepError, TransientError
from cdcrep.position import Position
from cdcrep.table import Table, TableId
from cdcrep_connectors.mysql.changed_keys import ChangedKeys, changed_keys
from cdcrep_connectors.mysql.first_view import FirstView, noted_position
from cdcrep_connectors.mysql.position import parse_position
from cdcrep_connectors.mysql.reread import has_exact_keys

log = structlog.get_logger(__name__)

CHUNK_KEYS: Final = 100_000
"""Rows that are looked up and written in one target transaction."""

ReadLog = Callable[[Position, Collection[TableId], Position], Iterable[Batch]]
"""Yields what was committed after one position to some tables, up to another position or a little further."""


@dataclass(frozen=True)
class Completion:
    """What completes the copy of a table."""

    view: FirstView
    done: frozenset[int]
    """Ranges that durable chunks cover."""
    keys: Sequence[pa.Table]
    """Keys of the rows that have changed since, in parts, each once."""


class Interrupted:
    """The copies that are to be completed from one view."""

    def __init__(self, copies: Mapping[TableId, Copied], read_log: ReadLog, until: Position) -> None:
        """Nothing is read before the first table is asked for."""
        self._copies = dict(copies)
        self._read_log = read_log
        self._until = until
        self._changes: dict[Position, Mapping[TableId, ChangedKeys | str]] = {}
        """By where the views stood: what was found, or why the log could not be read."""

    def completion(self, table: Table, copied: Copied) -> Completion | None:
        """Return what completes a table's copy; None: it begins anew.

        Raises:
            TransientError: the log could not be read to its end.
        """
        self._copies.setdefault(table.id, copied)
        found = self._find(table, copied)
        if isinstance(found, Completion):
            log.info(
                "an interrupted copy goes on",
                table=str(table.id),
                parts_copied=len(found.done),
                parts=len(found.view.ranges),
                rows_changed=sum(map(len, found.keys)),
            )
            return found
        log.warning("an interrupted copy begins anew", table=str(table.id), because=found)
        return None

    def _find(self, table: Table, copied: Copied) -> Completion | str:
        """Return what completes a table's copy, or the reason why nothing can."""
        if not table.key:
            return "the table has no key"
        if not has_exact_keys(table):
            return "rows cannot be looked up by a key of this type"
        view = FirstView.parse(copied.snapshot, table)
        if view is None:
            return "its columns have changed since, or it was begun by another version of cdcrep"
        if not (done := view.done(copied.chunks)):
            return "no part of it was finished"
        changed = self._changed_since(view.position, table.id)
        if isinstance(changed, str):
            return changed
        keys = changed.ascending()
        if changed.problem:
            return changed.problem
        if changed.table is not None and not changed.table.same_shape(table):
            return "its columns have changed since"
        # At least one part where anything changed: the copy then is pruned.
        parts = [] if keys is None else [keys.slice(i, CHUNK_KEYS) for i in range(0, max(len(keys), 1), CHUNK_KEYS)]
        return Completion(view, done, parts)

    def _changed_since(self, position: Position, table: TableId) -> ChangedKeys | str:
        known = self._changes.get(position)
        if known is None or table not in known:
            tables = [each for each, copied in self._copies.items() if noted_position(copied.snapshot) == position]
            self._changes[position] = self._read(position, tables)
        return self._changes[position][table]

    def _read(self, after: Position, tables: Sequence[TableId]) -> Mapping[TableId, ChangedKeys | str]:
        """Collect what has changed; where the log holds what cannot be read of some tables, the others do without."""
        try:
            return changed_keys(self._batches(after, tables), tables)
        except TransientError:
            raise
        except CdcrepError as error:
            if len(tables) == 1 or not self._can_be_read(after):
                return dict.fromkeys(tables, f"what has changed since cannot be read: {error.message}")
        # In halves: a table that is the reason is found without reading the log for each.
        middle = len(tables) // 2
        return {**self._read(after, tables[:middle]), **self._read(after, tables[middle:])}

    def _can_be_read(self, after: Position) -> bool:
        """Tell whether the log can be read from a position on, whatever it holds."""
        try:
            for _ in self._read_log(after, (), after):
                pass
        except TransientError:
            raise
        except CdcrepError:
            return False
        return True

    def _batches(self, after: Position, tables: Sequence[TableId]) -> Iterator[Batch]:
        """Yield what the log has up to the view.

        Raises:
            TransientError: it ended before.
        """
        until, reached = parse_position(self._until).reached, after
        log.info("reading what has changed since a copy was interrupted", tables=len(tables))
        for batch in self._read_log(after, tables, self._until):
            reached = batch.position or reached
            yield batch
        if not parse_position(reached).reached.contains(until):
            raise TransientError("stopped while reading what has changed since the copy was interrupted")
