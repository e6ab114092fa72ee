"""Brings the net effect on a table without a key, a multiset of rows, into the target: exactly as many copies."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cdcrep.errors import DivergedError, SetupError
from cdcrep.fold import NetRows
from cdcrep.table import Kind
from cdcrep_connectors.mysql.apply_keyed import insert
from cdcrep_connectors.mysql.apply_stage import DOOMED, NUMBER, REMOVED, make_stage
from cdcrep_connectors.mysql.bulk_values import NamedRows
from cdcrep_connectors.mysql.session import Session
from cdcrep_connectors.mysql.target_names import ROW_NUMBER, copy_again, quote
from cdcrep_connectors.mysql.target_tables import TargetTable

FLOATS = frozenset({Kind.FLOAT32, Kind.FLOAT64})


def apply_rows(session: Session, target: TargetTable, net: NetRows) -> None:
    """Apply what happened to a table without a key.

    Raises:
        DivergedError: the target has fewer copies of a row than are to go.
    """
    if net.truncated:
        session.execute(f"DELETE FROM {target.name}")
    if wanted := int(net.counts.sum()):
        removed = _remove(session, target, net)
        if removed < wanted:
            raise DivergedError(
                f"{target.table.id}: {wanted - removed} of {wanted} row(s) to delete are missing in the target",
                hint=f"find out what changed the target; {copy_again(target.table.id)}",
            )
    if net.added.num_rows:
        insert(session, target, net.added)


def _remove(session: Session, target: TargetTable, net: NetRows) -> int:
    """Delete as many copies of each row as are to go, in one scan of the target; return how many there were."""
    if not target.numbered:
        raise SetupError(
            f"{target.table.id}: the target's table has no column {ROW_NUMBER} that tells copies of a row apart",
            hint=copy_again(target.table.id),
        )
    _stage_removed(session, target, net)
    same = " AND ".join(_same(target, i) for i in target.written)
    make_stage(session, DOOMED, ["id BIGINT UNSIGNED PRIMARY KEY"])
    session.execute(
        f"INSERT INTO {DOOMED} SELECT id FROM (SELECT t.{quote(ROW_NUMBER)} AS id, s.copies AS copies, "
        f"ROW_NUMBER() OVER (PARTITION BY s.number ORDER BY t.{quote(ROW_NUMBER)}) AS copy "
        f"FROM {target.name} t STRAIGHT_JOIN {REMOVED} s FORCE INDEX (h) ON s.h = {_hash(target, 't')} AND {same}"
        ") numbered WHERE copy <= copies"
    )
    return session.execute(f"DELETE t FROM {DOOMED} d STRAIGHT_JOIN {target.name} t ON t.{quote(ROW_NUMBER)} = d.id")


def _stage_removed(session: Session, target: TargetTable, net: NetRows) -> None:
    definitions = [f"c{i} {target.column_type(i)}" for i in target.written]
    definitions += ["number BIGINT NOT NULL", "copies BIGINT NOT NULL", "h BIGINT", "INDEX h (h)"]
    make_stage(session, REMOVED, definitions)
    names = [*(f"c{i}" for i in target.written), "number", "copies"]
    columns = [*(target.table.columns[i] for i in target.written), NUMBER, NUMBER]
    values = [net.removed.column(i) for i in target.written]
    values += [pa.chunked_array([pa.array(numbers)]) for numbers in (np.arange(len(net.counts)), net.counts)]
    session.insert(REMOVED, NamedRows(target.table, names, columns, values, len(net.counts)))
    session.execute(f"UPDATE {REMOVED} s SET h = {_hash(target, 's')}")


def _hash(target: TargetTable, alias: str) -> str:
    """Return a number that equal rows share: what the stage is searched by."""
    parts = [f"t.{target.column(i)}" if alias == "t" else f"s.c{i}" for i in target.written]
    return f"CRC32(CONCAT_WS('|', {', '.join(parts)}))"


def _same(target: TargetTable, ordinal: int) -> str:
    held, staged = f"t.{target.column(ordinal)}", f"s.c{ordinal}"
    same = f"{held} <=> {staged}"
    if target.table.columns[ordinal].type.kind in FLOATS:
        # 0.0 equals -0.0 for the servers.
        return f"{same} AND CAST({held} AS CHAR) <=> CAST({staged} AS CHAR)"
    return same
