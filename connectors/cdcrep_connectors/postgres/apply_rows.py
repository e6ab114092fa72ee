"""Brings the net effect on a table without a key, a multiset of rows, into the target: exactly as many copies."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cdcrep.errors import DivergedError
from cdcrep.fold import NetRows
from cdcrep_connectors.postgres.session import Session
from cdcrep_connectors.postgres.stage import Stage
from cdcrep_connectors.relational.recovery import copy_again


def add_rows(session: Session, stage: Stage, net: NetRows) -> None:
    """Insert the rows that came."""
    target, rows = stage.target, net.added.num_rows
    if not rows:
        return
    if not target.written:
        session.execute(f"INSERT INTO {target.name} SELECT FROM generate_series(1, {rows})")
        return
    session.copy(
        f"COPY {target.name} ({', '.join(map(target.column, target.written))}) FROM STDIN",
        [net.added.column(i) for i in target.written],
        rows,
    )


def remove_rows(session: Session, stage: Stage, net: NetRows) -> None:
    """Delete as many copies of each row as are to go, in one scan.

    Rows are compared by their text form, in which NULL, NaN, -0.0 and types without equality are no special cases.

    Raises:
        DivergedError: the target has fewer copies.
    """
    wanted = int(net.counts.sum())
    if not wanted:
        return
    removed = _remove_staged(session, stage, net) if stage.target.written else _remove_any(session, stage, wanted)
    if removed < wanted:
        raise DivergedError(
            f"{stage.target.table.id}: {wanted - removed} of {wanted} row(s) to delete are missing in the target",
            hint=f"find out what changed the target; {copy_again(stage.target.table.id)}",
        )


def _remove_staged(session: Session, stage: Stage, net: NetRows) -> int:
    target, ordinals = stage.target, stage.target.written
    stage.create(session)
    # Staged as often as they are to be deleted: a count would be one column too many in the widest tables.
    rows = net.removed.take(pa.array(np.repeat(np.arange(len(net.counts)), net.counts)))
    stage.fill(session, stage.rows, {f"c{i}": rows.column(i) for i in ordinals}, rows.num_rows)
    image = f'ROW({", ".join(f"t.{target.column(i)}" for i in ordinals)})::text COLLATE "C"'
    staged = f'ROW({", ".join(f"s.c{i}" for i in ordinals)})::text COLLATE "C"'
    # Numbers the copies of each wanted row; the planner must not compare every row with every wanted one.
    places = f"""
        SELECT tableoid, ctid FROM (
            SELECT t.tableoid, t.ctid, wanted.copies, row_number() OVER (PARTITION BY wanted.image) AS copy
            FROM {target.name} t
            JOIN (SELECT {staged} AS image, count(*) AS copies FROM {stage.rows} s GROUP BY 1) wanted
            ON {image} = wanted.image
        ) found WHERE copy <= copies"""
    session.execute("SET LOCAL enable_hashjoin = on; SET LOCAL enable_nestloop = off")
    if target.partitioned:
        condition = f"(t.tableoid, t.ctid) IN ({places})"
    else:
        condition = f"t.ctid = ANY (ARRAY(SELECT ctid FROM ({places}) place))"
    removed = session.execute(f"DELETE FROM {target.name} t WHERE {condition}").rowcount
    session.execute("SET LOCAL enable_hashjoin = off; SET LOCAL enable_nestloop = on")
    return removed


def _remove_any(session: Session, stage: Stage, count: int) -> int:
    """Delete rows of a table without columns, which are all alike."""
    name = stage.target.name
    return session.execute(
        f"DELETE FROM {name} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {name} LIMIT {count}))"
    ).rowcount
