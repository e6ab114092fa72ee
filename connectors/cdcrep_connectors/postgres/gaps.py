"""Finds out whether rows came or went unsent where the files of a table are others than at an earlier look.

What proves that nothing is missing:

- A row older than the earlier look survives in a file: neither TRUNCATE nor a rewrite with new values leaves one, while
  VACUUM FULL, CLUSTER and SET TABLESPACE keep who wrote a row. Without such a row they cannot be told from TRUNCATE.
- The stream carried a TRUNCATE of the whole table by the transaction that gave the partition its file.
- No row of a partition is older than its being attached.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg

from cdcrep.errors import DivergedError, TransientError
from cdcrep.table import TableId
from cdcrep_connectors.postgres.connection import Connection
from cdcrep_connectors.postgres.publication import quoted_table
from cdcrep_connectors.postgres.storage import Look, Part
from cdcrep_connectors.relational.recovery import copy_again

XID: Final = 0xFFFFFFFF

KEEP: Final = 'or set removed_partitions = "keep" in [source]: the target then keeps the rows of removed partitions'
HARMLESS: Final = "a mere VACUUM FULL or CLUSTER of a partition without older rows loses nothing: set it for one start"


@dataclass(frozen=True)
class Gap:
    """Something that the stream has not told."""

    table: TableId
    what: str
    keepable: bool = False
    """The target may have rows too many, and users may want that."""
    key: tuple[int, int] | None = None
    """Names the event if a TRUNCATE that the stream still has to bring would explain it."""

    def error(self) -> DivergedError:
        """Make the error that ends the stream."""
        lines = [
            copy_again(self.table),
            *[KEEP] * self.keepable,
            *[HARMLESS] * (self.keepable and self.key is not None),
        ]
        return DivergedError(self.what, hint="\n".join(lines))


@dataclass(frozen=True)
class Known:
    """What was known of a table earlier."""

    horizon: int
    """Every transaction before this one is accounted for."""
    partitions: Mapping[int, Part | None]
    """By oid; None: nothing is known but that it was there."""
    missing: bool = False
    """Some partition that was there is gone; nobody knows which."""


def find_gaps(
    connection: Connection, known: Mapping[TableId, Known], now: Look, carried: Mapping[TableId, Collection[int]]
) -> Iterator[Gap]:
    """Compare tables with what was known of them; `carried` are the transactions whose TRUNCATEs the stream brought.

    Raises:
        psycopg.Error: a partition cannot be read.
    """
    for table, before in known.items():
        emptied_by = carried.get(table, ())
        yield from _of_columns(connection, table, before, now.altered.get(table, ()), emptied_by)
        if table in now.partitions:
            yield from _of_partitions(connection, table, before, now.partitions[table], emptied_by)


def _of_partitions(
    connection: Connection, table: TableId, before: Known, now: Mapping[int, Part], carried: Collection[int]
) -> Iterator[Gap]:
    if before.missing:
        yield _gone(table, "a partition", " while cdcrep did not run")
    for oid, part in before.partitions.items():
        if oid not in now:
            yield _gone(table, f"partition {part.id}" if part else "a partition")
    refiled: dict[int, bool] = {}
    for oid, part in now.items():
        earlier = before.partitions.get(oid)
        is_new = oid not in before.partitions or (earlier is not None and earlier.attached != part.attached)
        if part.kind != "r" or part.persistence != "p":
            kind = "a foreign table" if part.kind == "f" else "unlogged"
            yield Gap(table, f"partition {part.id} of {table} is {kind}: its changes are not sent")
        elif is_new and _was_attached_with_rows(connection, table, part):
            what = f"partition {part.id} was attached to {table} while it held rows"
            yield Gap(table, f"{what}, which are not sent: they are missing in the target")
        elif is_new and part.file_number != part.oid and part.written not in (part.attached, part.created):
            refiled[oid] = True
        elif not is_new and (earlier is None or earlier.file_number != part.file_number):
            refiled[oid] = False
    # A subtransaction has a number of its own, which the stream does not tell.
    together = len({now[oid].written for oid in refiled}) == 1 and before.partitions.keys() & now <= refiled.keys()
    for oid, is_new in refiled.items():
        part = now[oid]
        if part.written & XID in carried or (carried and together):
            continue
        if not _has_older_row(connection, table, part, part.written if is_new or carried else before.horizon):
            what = f"partition {part.id} of {table} was emptied (TRUNCATE) or rewritten (ALTER TABLE) at the source"
            what = f"{what}, which is not sent: rows of the target may be different"
            yield Gap(table, what, keepable=True, key=(oid, part.file_number))


def _gone(table: TableId, what: str, when: str = "") -> Gap:
    what = f"{what} of {table} was dropped or detached at the source{when}"
    return Gap(table, f"{what}, which is not sent: the target still has its rows", keepable=True)


def _of_columns(
    connection: Connection, table: TableId, before: Known, altered: Collection[Part], carried: Collection[int]
) -> Iterator[Gap]:
    """Find columns whose values were computed anew: their rows bear the number of the transaction that altered them."""
    for part in altered:
        columns = {name: xid for name, xid in part.altered.items() if xid & XID not in carried}
        if not columns or _has_older_row(connection, table, part, before.horizon):
            continue
        numbers = [str(xid & XID) for xid in columns.values()]
        if _finds(connection, table, part, "xmin::text = ANY(%s::text[])", [numbers], unsure=True):
            named = ", ".join(map(repr, columns))
            what = f"ALTER TABLE rewrote the rows of {part.id} at the source (column {named})"
            what = f"{what}, which is not sent: values of the target may be different"
            yield Gap(table, what, key=(part.oid, max(columns.values())))


def _has_older_row(connection: Connection, table: TableId, part: Part, horizon: int) -> bool:
    """Tell whether a row survives that was written before a transaction."""
    # A negative age: written more than 2^31 transactions ago. A file that was moved has such rows at its beginning.
    condition = "age(xmin) > age(%s::text::xid) OR age(xmin) < 0"
    return bool(_finds(connection, table, part, condition, [str(horizon & XID)], unsure=False))


def _was_attached_with_rows(connection: Connection, table: TableId, part: Part) -> bool:
    """Tell whether rows of a partition are older than its being attached.

    Raises:
        TransientError: there are too many rows to tell in time.
    """
    attached, command = str(part.attached & XID), part.command
    # Created by the same transaction, it was not visible to others before: a row with a lower number was written late.
    condition, values = "xmin = %s::text::xid AND cmin::text::bigint < %s", [attached, command]
    if part.attached != part.created:
        # Created in a subtransaction of the attaching transaction, it seems to be younger than its being attached.
        last = str(max(part.attached, part.created) & XID)
        condition = "age(xmin) > age(%s::text::xid) OR age(xmin) < 0 OR "
        condition += "(age(xmin) >= age(%s::text::xid) AND cmin::text::bigint < %s)"
        values = [attached, last, command]
    found = _finds(connection, table, part, condition, values, unsure=None)
    if found is None:
        raise TransientError(
            f"looking for rows of {part.id} that are older than its being attached took too long",
            hint="raise statement_timeout in [source]",
        )
    return found


def _finds(
    connection: Connection, table: TableId, part: Part, condition: str, values: Sequence[object], *, unsure: bool | None
) -> bool | None:
    """Tell whether a part of a table has a row; return `unsure` where that takes longer than statement_timeout."""
    query = "SELECT EXISTS (SELECT FROM {} WHERE {})"
    try:
        try:
            text = query.format(f"ONLY {quoted_table(part.id)}", condition)
            row = connection.execute(text.encode(), values).fetchone()
        except psycopg.errors.InsufficientPrivilege:
            # Nobody has to grant anything on new partitions: they can be read through their table.
            bounds = connection.execute(b"SELECT pg_get_partition_constraintdef(%s)", [part.oid]).fetchone()
            within = str(bounds[0]).replace("%", "%%") if bounds and bounds[0] else "true"
            text = query.format(quoted_table(table), f"tableoid = {part.oid} AND ({within}) AND ({condition})")
            row = connection.execute(text.encode(), values).fetchone()
    except psycopg.errors.QueryCanceled:
        return unsure
    return row is not None and bool(row[0])
