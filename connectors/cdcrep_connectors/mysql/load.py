"""Loads chunks of the first copy: Arrow batches as bulk statements, one transaction per chunk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pyarrow as pa

from cdcrep.connector import Chunk, Stream
from cdcrep.crashpoint import reached
from cdcrep.errors import DataError, SetupError
from cdcrep.table import Table
from cdcrep_connectors.mysql import checkpoint
from cdcrep_connectors.mysql.apply_keyed import insert, make_kept_keys, stage_keys, upsert
from cdcrep_connectors.mysql.apply_stage import KEYS
from cdcrep_connectors.mysql.checkpoint import Fence
from cdcrep_connectors.mysql.fencing import Guard
from cdcrep_connectors.mysql.session import Session
from cdcrep_connectors.mysql.target_tables import TargetTable, find

ARROW: Final = "arrow"

UPSERT_ROWS: Final = 100_000
"""Rows of an overlapping chunk that are written together: bounds memory."""


class MySQLLoader:
    """One session of the first copy."""

    def __init__(self, session: Session, fence: Fence, guard: Guard, *, upsert: bool) -> None:
        session.use_bookkeeping()
        self._session = session
        self._fence = fence
        self._guard = guard
        self._upsert = upsert
        self._targets: dict[Table, TargetTable] = {}

    def load(self, chunk: Chunk, formats: Mapping[str, Stream]) -> tuple[int, int]:
        """Write a chunk's rows and its name in one transaction; return rows and bytes."""
        with self._guard(f"loading {chunk.table.id}"), self._session.transaction():
            rows, size = self._write(chunk, formats)
            self._fence.hold(self._session)
            checkpoint.remember_chunk(self._session, self._fence.pipeline, chunk.table.id, chunk.name, rows, size)
            reached("load.before_commit")
        reached("load.after_commit")
        return rows, size

    def prune(self, table: Table, keys: Mapping[str, Stream]) -> int:
        """Delete the rows whose key is not among `keys`, in one transaction; return how many."""
        session = self._session
        with self._guard(f"completing the copy of {table.id}"), session.transaction():
            target = self._target(table)
            make_kept_keys(session, target)
            for batch in self._batches(table, keys):
                stage_keys(session, target, batch)
            removed = self._delete_others(target)
            self._fence.hold(session)
        return removed

    def _delete_others(self, target: TargetTable) -> int:
        same = " AND ".join(
            f"t.{target.column(ordinal)} = s.k{place}" for place, ordinal in enumerate(target.table.key_positions)
        )
        return self._session.execute(f"DELETE t FROM {target.name} t LEFT JOIN {KEYS} s ON {same} WHERE s.k0 IS NULL")

    def _write(self, chunk: Chunk, formats: Mapping[str, Stream]) -> tuple[int, int]:
        target, rows, size = self._target(chunk.table), 0, 0
        overlapping = bool(chunk.table.key) and (chunk.overlapping or self._upsert)
        waiting: list[pa.RecordBatch] = []
        for batch in self._batches(chunk.table, formats):
            rows += batch.num_rows
            if not overlapping:
                size += insert(self._session, target, pa.Table.from_batches([batch]))
                continue
            size += batch.nbytes
            waiting.append(batch)
            if sum(map(len, waiting)) >= UPSERT_ROWS:
                upsert(self._session, target, pa.Table.from_batches(waiting))
                waiting = []
        if waiting:
            upsert(self._session, target, pa.Table.from_batches(waiting))
        return rows, size

    def _batches(self, table: Table, formats: Mapping[str, Stream]) -> Iterator[Any]:
        if ARROW not in formats:
            raise DataError(f"{table.id}: the source offers no format that the target reads: {sorted(formats)}")
        for batch in formats[ARROW]():
            if batch.num_rows:
                yield batch

    def _target(self, table: Table) -> TargetTable:
        if table not in self._targets:
            target = find(self._session, table)
            if target is None:
                raise SetupError(f"{table.id}: the table is missing in the target")
            self._targets[table] = target
        return self._targets[table]

    def cancel(self) -> None:
        """Make a running `load` roll back and raise TransientError soon."""
        self._session.cancel()

    def close(self) -> None:
        """End the session."""
        self._session.close()
