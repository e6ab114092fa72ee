"""Brings the net effect on a table with a key into the target: rows leave under their keys, then final images enter.

No statement here finds a row by anything but the source's key, so that another unique index of the target can refuse a
row but never have another row changed. Since every affected row is gone before one enters, keys and unique values may
swap in any way. What a batch does not carry (unchanged cells, columns of the target itself) is read before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pymysql
from pymysql.constants import ER

from cdcrep.errors import DivergedError
from cdcrep.fold import Net
from cdcrep.table import INTEGERS, Kind
from cdcrep_connectors.mysql.apply_stage import FLAG, IMAGES, KEYS, joined_by_key, key_definitions, make_stage
from cdcrep_connectors.mysql.bulk_values import NamedRows
from cdcrep_connectors.mysql.session import Session
from cdcrep_connectors.mysql.target_names import copy_again, quote
from cdcrep_connectors.mysql.target_tables import TargetTable

COMPARED_AS_WRITTEN: Final = INTEGERS | {Kind.TEXT, Kind.BYTES, Kind.UUID, Kind.VERBATIM}
"""Kinds of keys whose literals an index is searched for. Others could be compared as floating-point numbers: they go
through a stage, where column is compared with column."""


def apply_net(session: Session, target: TargetTable, net: Net) -> int:
    """Apply what happened to a table with a key; return how many rows that were to change are missing.

    Raises:
        DivergedError: a row is missing of which the change does not carry every value.
    """
    if net.truncated:
        # TRUNCATE would end the transaction.
        session.execute(f"DELETE FROM {target.name}")
    if net.rows.num_rows and (net.unknown or (target.own and not net.truncated)):
        return _apply_carrying(session, target, net)
    keys = net.rows.select(list(target.table.key_positions))
    there = keys.filter(pa.array(~net.fresh))
    removed = delete_keys(session, target, [net.deletes, there])
    if net.rows.num_rows:
        _enter(session, target, net.rows, keys.filter(pa.array(net.fresh)))
    return len(net.deletes) + len(there) - removed


def upsert(session: Session, target: TargetTable, rows: pa.Table) -> None:
    """Put rows of which every value is known in the place of those under their keys."""
    none = rows.select(list(target.table.key_positions)).slice(0, 0)
    apply_net(session, target, Net(target.table, False, none, rows, np.zeros(len(rows), np.bool_)))


def insert(session: Session, target: TargetTable, rows: pa.Table) -> int:
    """Insert rows of all the source's columns; return the bytes sent."""
    names = list(map(target.column, target.written))
    columns = [target.table.columns[i] for i in target.written]
    values = [rows.column(i) for i in target.written]
    return session.insert(target.name, NamedRows(target.table, names, columns, values, rows.num_rows))


def delete_keys(session: Session, target: TargetTable, parts: Sequence[pa.Table]) -> int:
    """Delete the rows under some keys; return how many there were."""
    parts = [part for part in parts if part.num_rows]
    if not parts:
        return 0
    table, names = target.table, [target.column(i) for i in target.table.key_positions]
    if all(column.type.kind in COMPARED_AS_WRITTEN for column in table.identity):
        return sum(
            session.delete(target.name, NamedRows(table, names, table.identity, keys.columns, keys.num_rows))
            for keys in parts
        )
    make_stage(session, KEYS, key_definitions(target, "k"))
    for keys in parts:
        stage_keys(session, target, keys)
    return session.execute(f"DELETE t FROM {KEYS} {joined_by_key(target, 'k', by_position=True)}")


def make_kept_keys(session: Session, target: TargetTable) -> None:
    """Make an empty stage of keys, in which rows of the target are looked up by their keys."""
    definitions = key_definitions(target, "k")
    names = ", ".join(f"k{place}" for place in range(len(definitions)))
    make_stage(session, KEYS, [*definitions, f"INDEX kept ({names})"])


def stage_keys(session: Session, target: TargetTable, keys: Any) -> None:
    """Add keys, a table or record batch of the key's columns, to their stage."""
    names = [f"k{place}" for place in range(len(target.table.key))]
    session.insert(KEYS, NamedRows(target.table, names, target.table.identity, keys.columns, keys.num_rows))


def _enter(session: Session, target: TargetTable, rows: pa.Table, new: pa.Table) -> None:
    """Insert rows; those under keys that should have been free take the place of what stands there."""
    if not new.num_rows:
        insert(session, target, rows)
        return
    session.execute("SAVEPOINT entering")
    try:
        insert(session, target, rows)
    except pymysql.IntegrityError as error:
        if error.args[0] != ER.DUP_ENTRY:
            raise
        session.execute("ROLLBACK TO SAVEPOINT entering")
        if not delete_keys(session, target, [new]):
            raise
        insert(session, target, rows)


def _apply_carrying(session: Session, target: TargetTable, net: Net) -> int:
    unknown = {i: mask for i, mask in net.unknown.items() if i in target.written}
    _stage_images(session, target, net, sorted(unknown))
    taken = ["s.f = 1"]
    # Of an ENUM IF makes a text, and its 0 is none of the labels: from column to column it is copied.
    enums = [i for i in unknown if target.is_enum(i)]
    taken += [f"s.c{i} = IF(s.u{i}, t.{target.column(i)}, s.c{i})" for i in unknown if i not in enums]
    taken += [f"s.o{n} = t.{quote(column.name)}" for n, column in enumerate(target.own)]
    matched = joined_by_key(target, "m", by_position=True)
    found = session.execute(f"UPDATE {IMAGES} {matched} SET {', '.join(taken)}")
    for i in enums:
        session.execute(f"UPDATE {IMAGES} {matched} SET s.c{i} = t.{target.column(i)} WHERE s.u{i}")
    expected = int((~net.fresh).sum() if net.moved is None else (~net.fresh | net.moved).sum())
    if unknown:
        lacking = " OR ".join(f"u{i}" for i in unknown)
        ((absent,),) = session.fetch(f"SELECT COUNT(*) FROM {IMAGES} WHERE f = 0 AND ({lacking})")
        if absent:
            raise DivergedError(
                f"{target.table.id}: {absent} changed row(s) are missing in the target, and the source did not send "
                "all their values (unchanged large values are not sent)",
                hint=copy_again(target.table.id),
            )
    left = int(net.deletes.num_rows) - delete_keys(session, target, [net.deletes])
    session.execute(f"DELETE t FROM {IMAGES} {joined_by_key(target, 'c')}")
    names = ", ".join(map(target.column, target.written))
    values = ", ".join(f"c{i}" for i in target.written)
    # New rows take the defaults of the target's own columns.
    own = "".join(f", {quote(column.name)}" for column in target.own)
    kept = "".join(f", o{n}" for n in range(len(target.own)))
    session.execute(f"INSERT INTO {target.name} ({names}{own}) SELECT {values}{kept} FROM {IMAGES} WHERE f = 1")
    session.execute(f"INSERT INTO {target.name} ({names}) SELECT {values} FROM {IMAGES} WHERE f = 0")
    # The keys that missing rows have moved from are among those that could not be deleted.
    return max(expected - found, left, 0)


def _stage_images(session: Session, target: TargetTable, net: Net, unknown: Sequence[int]) -> None:
    """Stage the final images (`c`), the keys before (`m`) and which cells are unknown (`u`)."""
    table = target.table
    definitions = [f"c{i} {target.column_type(i)}" for i in target.written]
    definitions += key_definitions(target, "m")
    definitions += [f"u{i} TINYINT NOT NULL" for i in unknown]
    definitions += [f"o{n} {column.declared}" for n, column in enumerate(target.own)]
    make_stage(session, IMAGES, [*definitions, "f TINYINT NOT NULL DEFAULT 0"])
    before = net.match if net.match is not None else net.rows.select(list(table.key_positions))
    names = [f"c{i}" for i in target.written]
    names += [f"m{place}" for place in range(len(table.key))] + [f"u{i}" for i in unknown]
    columns = [*(table.columns[i] for i in target.written), *table.identity, *(FLAG for _ in unknown)]
    values = [net.rows.column(i) for i in target.written] + list(before.columns)
    values += [pa.chunked_array([pa.array(net.unknown[i].astype(np.int8))]) for i in unknown]
    session.insert(IMAGES, NamedRows(table, names, columns, values, net.rows.num_rows))
