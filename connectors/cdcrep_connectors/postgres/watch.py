"""Watches, from the reading thread, for what happens to replicated tables without the stream telling.

A look is taken before the first batch, every half minute, soon after the first row in a partition, and where the stream
empties a partitioned table. It costs a few catalogue queries; batches in between cost nothing. A look sees the present,
the stream is behind: a partition that seems emptied may be so by a TRUNCATE of the whole table that is still to come.
So the verdict waits until the stream has passed the moment of the look. Until then positions keep the memory of the
look before, so that a start in between comes to the same verdict.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, Protocol

import psycopg

from cdcrep.changes import Batch
from cdcrep.connector import Copied
from cdcrep.position import Position
from cdcrep.table import TableId
from cdcrep_connectors.postgres.connection import Connection
from cdcrep_connectors.postgres.failures import translate
from cdcrep_connectors.postgres.gaps import Gap, Known, find_gaps
from cdcrep_connectors.postgres.lsn import parse_lsn, parse_position, remembering
from cdcrep_connectors.postgres.membership import check_membership
from cdcrep_connectors.postgres.memory import (
    copied_horizon,
    known_by_copy,
    known_by_memory,
    no_memory,
    read_memory,
    write_memory,
)
from cdcrep_connectors.postgres.publication import query_one
from cdcrep_connectors.postgres.storage import Look, look

SECONDS: Final = 30.0
"""Between two looks."""

SOONER_SECONDS: Final = 1.0
"""Between two looks where the server has described a table again: it does so before the first row in a partition."""

# Only this server is waited for, where there are standbys.
MARK: Final = """
SELECT set_config('synchronous_commit', 'local', true), pg_logical_emit_message(true, 'cdcrep', '')::text
"""

PASSING: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.UndefinedTable)
"""A partition is being altered, or was dropped or renamed since the catalogue was read: the next look tells."""


class Stream(Protocol):
    """What is asked of the stream that is watched."""

    @property
    def truncations(self) -> Mapping[TableId, Collection[int]]:
        """Transactions whose TRUNCATE of a table was received."""

    @property
    def described(self) -> int:
        """How many times the server has described a table."""

    def forget_truncations(self) -> None:
        """Forget those received so far."""

    def go_on_until(self, lsn: int) -> None:
        """End later than asked for, if at all."""


class Watch:
    """Looks at the tables of one stream that begins at `after`."""

    def __init__(
        self,
        session: Callable[[], Connection],
        stream: Stream,
        publication: str,
        after: Position,
        copied: Mapping[TableId, Copied],
        *,
        keep_removed: bool,
    ) -> None:
        self._session, self._stream, self._publication = session, stream, publication
        self._copied, self._keep_removed = copied, keep_removed
        place = parse_position(after)
        self._written = place.memory or no_memory(place.lsn)
        self._memory = read_memory(self._written)
        self._known: dict[TableId, Known] | None = None
        self._later = {table for table, copy in copied.items() if parse_position(copy.position).lsn >= self._memory.lsn}
        self._pending: dict[tuple[int, int], int] = {}
        self._partitioned: Collection[TableId] = ()
        self._looked = -math.inf
        self._described = 0
        self._passed = place.lsn

    def over(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on with the memory in their positions.

        Raises:
            DivergedError: changes of a table may be missing.
        """
        for batch in batches:
            if self._is_due(batch):
                self._look()
            if batch.position is None:
                yield batch
            else:
                yield replace(batch, position=remembering(batch.position, self._written))

    def _is_due(self, batch: Batch) -> bool:
        if self._pending and batch.position is not None:
            self._passed = parse_position(batch.position).lsn
            if self._passed >= min(self._pending.values()):
                return True
        is_new = self._partitioned and self._stream.described != self._described
        if time.monotonic() >= self._looked + (min(SECONDS, SOONER_SECONDS) if is_new else SECONDS):
            return True
        # The position behind it must remember the new files, since the TRUNCATE is not sent again.
        return any(changes.truncated and changes.table.id in self._partitioned for changes in batch.changes)

    def _look(self) -> None:
        session = self._session()
        check_membership(session, self._publication, self._copied)
        self._looked = time.monotonic()
        self._described = self._stream.described
        now = look(session, self._publication, self._horizons())
        known = self._recall(now) if self._known is None else self._known
        try:
            gaps = list(find_gaps(session, known, now, self._stream.truncations))
        except PASSING:
            return
        except psycopg.Error as error:
            raise translate(error, "looking for rows that were not sent") from error
        if self._keep_removed:
            gaps = [gap for gap in gaps if not gap.keepable]
        for gap in gaps:
            if gap.key is None or self._pending.get(gap.key, self._passed + 1) <= self._passed:
                raise gap.error()
        self._partitioned = now.roots
        if gaps:
            self._wait_for(gaps)
            return
        self._pending = {}
        self._stream.forget_truncations()
        self._written = write_memory(now)
        self._known = {table: Known(now.horizon, now.partitions.get(table, {})) for table in self._copied}

    def _wait_for(self, gaps: Iterable[Gap]) -> None:
        """Let the stream pass the present before judging; what was pending already waits no longer for that."""
        row = query_one(self._session(), MARK)
        assert row is not None, "the function returns one row"
        here = parse_lsn(row[1])
        self._pending = {gap.key: self._pending.get(gap.key, here) for gap in gaps if gap.key is not None}
        self._stream.go_on_until(here)

    def _horizons(self) -> dict[TableId, int | None]:
        """Return since when each table is to be looked at."""
        if self._known is not None:
            return {table: known.horizon for table, known in self._known.items()}
        return {
            table: copied_horizon(copy) if table in self._later else self._memory.horizon
            for table, copy in self._copied.items()
        }

    def _recall(self, now: Look) -> dict[TableId, Known]:
        """Return what was known at the last look before this stream, or when tables were copied."""
        return {table: self._recall_table(table, horizon, now) for table, horizon in self._horizons().items()}

    def _recall_table(self, table: TableId, horizon: int | None, now: Look) -> Known:
        partitions, root = now.partitions.get(table, {}), now.roots.get(table)
        if root is not None:
            if table in self._later:
                if (known := known_by_copy(self._copied[table], partitions)) is not None:
                    return known
            elif root in self._memory.checksums:
                return known_by_memory(self._memory, root, partitions)
        # Nothing to compare with: what is there now is what is known.
        return Known(now.horizon if horizon is None else horizon, partitions)
