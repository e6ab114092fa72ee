"""Changes of one table as Arrow columns, and batches of whole transactions made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cdcrep.position import Position
from cdcrep.table import Table

INSERT, UPDATE, DELETE = ord("I"), ord("U"), ord("D")

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Changes:
    """n changes of one table in commit order, columnar.

    A value is either the source's text form (Arrow `string`) or already typed; the type of an Arrow column says which.
    """

    table: Table
    operations: NDArray[np.uint8]
    """(n,) INSERT, UPDATE or DELETE."""
    new: pa.Table
    """n rows of all the table's columns after the change; null in rows of DELETE and in unchanged cells."""
    old: pa.Table | None = None
    """n rows of `table.identity` before the change, or None where no change carries one."""
    old_present: Mask | None = None
    """(n,) rows in which `old` holds something: every DELETE; every UPDATE that moved the key (or, on a table without
    a key, every UPDATE). An UPDATE without it found its row by the key in `new`."""
    unchanged: Mapping[int, Mask] = field(default_factory=dict)
    """Column ordinal -> (n,) cells whose value the source did not send because the change left it as it was."""
    truncated: bool = False
    """The table was emptied before the first of these changes."""

    def __len__(self) -> int:
        """Count the changes."""
        return len(self.operations)

    @staticmethod
    def truncate(table: Table) -> Changes:
        """Make the emptying of a table, followed by nothing."""
        return Changes(table, np.empty(0, np.uint8), empty_table(table), truncated=True)


@dataclass(frozen=True)
class Batch:
    """Whole source transactions in commit order up to `position`; an empty batch is a heartbeat.

    The changes of one table keep their order; the order between tables is not kept: at `position` it makes no
    difference.
    """

    position: Position | None
    """Where the source stands after these changes; None: a piece of one large transaction that goes on in the next
    batch."""
    changes: tuple[Changes, ...] = ()
    """Per table in order; a table stands more than once only where its shape changed in between."""
    transactions: int = 0
    size: int = 0
    """Bytes as received: what bounds on memory count."""
    commit_time: float | None = None
    """When the last of the transactions committed at the source, in seconds since 1970."""
    skipped: int = 0
    """Transactions that the source sent again since the batch before, left out because they precede the start."""

    @property
    def rows(self) -> int:
        """Count the changes of all tables."""
        return sum(map(len, self.changes))


def merge(batches: Sequence[Batch]) -> Batch:
    """Make one batch of several that follow each other; what a TRUNCATE made moot is left out."""
    if len(batches) == 1:
        return batches[0]
    by_table: dict[object, list[Changes]] = {}
    for batch in batches:
        for changes in batch.changes:
            by_table.setdefault(changes.table.id, []).append(changes)
    merged = tuple(
        concatenate(list(run))
        for waiting in by_table.values()
        for _, run in groupby(waiting, key=lambda changes: changes.table)
    )
    times = [batch.commit_time for batch in batches if batch.commit_time is not None]
    return replace(
        batches[-1],
        changes=merged,
        transactions=sum(batch.transactions for batch in batches),
        size=sum(batch.size for batch in batches),
        commit_time=times[-1] if times else None,
        skipped=sum(batch.skipped for batch in batches),
    )


def concatenate(parts: Sequence[Changes]) -> Changes:
    """Join consecutive changes of one table in one shape, from its last TRUNCATE on; copied: the parts can go."""
    last_truncate = max((i for i, part in enumerate(parts) if part.truncated), default=0)
    parts = parts[last_truncate:]
    if len(parts) == 1:
        return parts[0]
    table = parts[0].table
    old, old_present = None, None
    if any(part.old is not None for part in parts):
        old_present = np.concatenate([_mask(part.old_present, len(part)) for part in parts])
        types = next(part.old for part in parts if part.old is not None).schema
        old = pa.concat_tables(
            [part.old if part.old is not None else _nulls(types, len(part)) for part in parts]
        ).combine_chunks()
    ordinals = sorted({ordinal for part in parts for ordinal in part.unchanged})
    return Changes(
        table,
        np.concatenate([part.operations for part in parts]),
        pa.concat_tables([part.new for part in parts if len(part)] or [parts[0].new]).combine_chunks(),
        old,
        old_present,
        {i: np.concatenate([_mask(part.unchanged.get(i), len(part)) for part in parts]) for i in ordinals},
        truncated=parts[0].truncated,
    )


def empty_table(table: Table) -> pa.Table:
    """Make zero rows of a table's columns in text form."""
    return pa.table([pa.array([], pa.string()) for _ in table.columns], names=[column.name for column in table.columns])


def _mask(mask: Mask | None, length: int) -> Mask:
    return np.zeros(length, np.bool_) if mask is None else mask


def _nulls(schema: pa.Schema, length: int) -> pa.Table:
    return pa.table([pa.nulls(length, column.type) for column in schema], schema=schema)
