"""Brings the net effect on a table with a key into the target: deletes, moved keys, updates, new rows.

The order within a table is: delete keys, move keys, update rows in place, insert rows. Where that order collides with
a unique index although the final state is right (keys or unique values that swap), `_rewrite` takes all affected rows
out and puts their final images in.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdcrep.changes import Mask
from cdcrep.columns import Positions
from cdcrep.errors import DivergedError, SetupError
from cdcrep.fold import Net
from cdcrep.table import Kind
from cdcrep_connectors.postgres.session import CONFLICTS, Session
from cdcrep_connectors.postgres.stage import Stage, Unknown, staged_columns
from cdcrep_connectors.postgres.target_tables import TargetTable
from cdcrep_connectors.relational.names import listed, quote
from cdcrep_connectors.relational.recovery import copy_again

SORTED_FROM: Final = 1_000
"""Rows from which it is worth its time to sort them."""

INTEGERS: Final = frozenset({Kind.INT8, Kind.INT16, Kind.INT32, Kind.INT64})


def delete_keys(session: Session, stage: Stage, net: Net) -> int:
    """Delete the keys that are gone, except those whose rows move on to other keys; return how many were missing."""
    target, rows = stage.target, net.deletes.num_rows
    if not rows:
        return 0
    stage.create(session)
    columns = {f"c{i}": net.deletes.column(k) for k, i in enumerate(target.table.key_positions)}
    stage.fill(session, stage.keys, columns, rows)
    if net.moved is None:
        return int(rows) - _delete_staged(session, stage)
    moving, match = net.rows.filter(pa.array(net.moved)), _match(net, net.moved)
    columns = {f"c{i}": moving.column(i) for i in target.table.key_positions}
    columns |= {f"m{k}": match.column(k) for k in range(match.num_columns)}
    stage.fill_rows(session, columns, match.num_rows)
    staged = _spare_moving(session, stage)
    return int(rows) - staged - _delete_staged(session, stage)


def _spare_moving(session: Session, stage: Stage) -> int:
    """Take the keys that staged rows move away from out of the staged keys; return how many those are."""
    # As the server compares keys: 1.0 is 1.00. Between two temporary tables a hash join is right.
    key = stage.target.table.key_positions
    same = stage.match.same([f"k.c{i}" for i in key], [f"s.m{n}" for n in range(len(key))])
    session.execute("SET LOCAL enable_hashjoin = on")
    spared = _count(session, f"DELETE FROM {stage.keys} k WHERE EXISTS (SELECT FROM {stage.images} s WHERE {same})")
    session.execute("SET LOCAL enable_hashjoin = off")
    return spared


def _delete_staged(session: Session, stage: Stage) -> int:
    return _count(session, f"DELETE FROM {stage.target.name} t USING {stage.keys} s WHERE {on_key(stage)}")


def write_rows(session: Session, stage: Stage, net: Net) -> int:
    """Write the final images; return how many rows that should have been in the target were missing.

    Raises:
        DivergedError: a row is missing of which the change does not carry every value.
    """
    if not net.rows.num_rows:
        return 0
    if not net.fresh.all() or net.moved is not None:
        stage.create(session)
    if net.moved is None and not net.fresh.any() and not stage.target.conflicts_elsewhere:
        return _update(session, stage, net, ~net.fresh)
    try:
        with session.savepoint():
            return _write_in_order(session, stage, net)
    except CONFLICTS:
        stage.create(session)
        return _write_again(session, stage, net)


def _write_in_order(session: Session, stage: Stage, net: Net) -> int:
    moved = np.zeros(net.rows.num_rows, np.bool_) if net.moved is None else net.moved
    new = net.fresh & ~moved
    missing = _move(session, stage, net) if moved.any() else 0
    in_place = ~(moved | new)
    if in_place.any():
        missing += _update(session, stage, net, in_place)
    if new.any():
        _insert(session, stage.target, net.rows if new.all() else net.rows.filter(pa.array(new)))
    return missing


def _write_again(session: Session, stage: Stage, net: Net) -> int:
    """Write images after they collided: new rows that exist already become updates, all else is rewritten."""
    if net.moved is None and net.fresh.any():
        try:
            with session.savepoint():
                missing = _update(session, stage, net, ~net.fresh) if (~net.fresh).any() else 0
                _update(session, stage, net, net.fresh)
                return missing
        except CONFLICTS:
            pass
    return _rewrite(session, stage, net)


def _insert(session: Session, target: TargetTable, rows: pa.Table) -> None:
    session.copy(
        f"COPY {target.name} ({', '.join(map(target.column, target.written))}) FROM STDIN",
        [rows.column(i) for i in target.written],
        rows.num_rows,
    )


def _update(session: Session, stage: Stage, net: Net, which: Mask) -> int:
    """Update rows under their own keys and insert those that are not there; return how many were not."""
    target, order = stage.target, _in_key_order(net, which)
    rows = net.rows.take(pa.array(order))
    unknown = Unknown.of({i: mask[order] for i, mask in net.unknown.items()}, rows.num_rows)
    stage.fill_rows(session, staged_columns(target, rows, unknown), rows.num_rows)
    updated = _update_from_stage(session, stage, unknown, on_key(stage), with_key=False)
    return _insert_missing(session, stage, unknown, rows.num_rows - updated)


def _in_key_order(net: Net, which: Mask) -> Positions:
    """Return the chosen rows' numbers in about the order of the key, to walk a large index once and not all over."""
    chosen = np.flatnonzero(which)
    if len(chosen) < SORTED_FROM:
        return chosen
    keys = []
    for i in net.table.key_positions:
        column = net.rows.column(i)
        if net.table.columns[i].type.kind in INTEGERS:
            column = pc.cast(column, pa.int64())
        keys.append(column)
    order = pc.sort_indices(
        pa.table(keys, names=[str(k) for k in range(len(keys))]).take(pa.array(chosen)),
        sort_keys=[(str(k), "ascending") for k in range(len(keys))],
    )
    sorted_: Positions = chosen[order.to_numpy()]
    return sorted_


def upsert_staged(session: Session, stage: Stage, rows: int) -> None:
    """Update or insert the fully known rows that the stage holds, `rows` in number."""
    unknown = Unknown.of({}, rows)
    updated = _update_from_stage(session, stage, unknown, on_key(stage), with_key=False)
    _insert_missing(session, stage, unknown, rows - updated)


def _update_from_stage(session: Session, stage: Stage, unknown: Unknown, condition: str, *, with_key: bool) -> int:
    target = stage.target
    key = target.table.key_positions
    ordinals = [i for i in target.written if i not in unknown.everywhere and (with_key or i not in key)]
    # A table of key columns only: its rows are found, and stay as they are.
    ordinals = ordinals or [i for i in key if i in target.written]
    changes = ", ".join(f"{target.column(i)} = {unknown.value(i, f't.{target.column(i)}')}" for i in ordinals)
    return _count(session, f"UPDATE {target.name} t SET {changes} FROM {stage.images} s WHERE {condition}")


def _insert_missing(session: Session, stage: Stage, unknown: Unknown, absent: int) -> int:
    """Insert the staged rows that the target lacks, `absent` in number; return how many those are."""
    target = stage.target
    if not absent:
        return 0
    complete = "s.u = 0 AND " if unknown.columns else ""
    inserted = _count(
        session,
        f"INSERT INTO {target.name} ({', '.join(map(target.column, target.written))}) OVERRIDING SYSTEM VALUE "
        f"SELECT {', '.join(_staged(target, unknown))} FROM {stage.images} s "
        f"WHERE {complete}NOT EXISTS (SELECT FROM {target.name} t WHERE {on_key(stage)})",
    )
    if inserted < absent:
        raise _incomplete(target, absent - inserted)
    return absent


def _staged(target: TargetTable, unknown: Unknown) -> list[str]:
    return ["NULL" if i in unknown.everywhere else f"s.c{i}" for i in target.written]


def _incomplete(target: TargetTable, count: int) -> DivergedError:
    table = target.table.id
    return DivergedError(
        f"{table}: {count} changed row(s) are missing in the target, and the source did not send all their "
        "values (unchanged large values are not sent)",
        hint=copy_again(table),
    )


def _move(session: Session, stage: Stage, net: Net) -> int:
    """Give rows their new keys by UPDATE, so that cells which the source did not send stay."""
    assert net.moved is not None
    target, rows = stage.target, net.rows.filter(pa.array(net.moved))
    unknown = Unknown.of({i: mask[net.moved] for i, mask in net.unknown.items()}, rows.num_rows)
    stage.fill_rows(session, staged_columns(target, rows, unknown, _match(net, net.moved)), rows.num_rows)
    # Rows under the new keys that do not move on themselves were deleted before their keys were taken.
    columns = {f"c{i}": rows.column(i) for i in net.table.key_positions}
    stage.fill(session, stage.keys, columns, rows.num_rows)
    _spare_moving(session, stage)
    _delete_staged(session, stage)
    moved = _update_from_stage(session, stage, unknown, _on_match(stage), with_key=True)
    return _insert_missing(session, stage, unknown, rows.num_rows - moved)


def _rewrite(session: Session, stage: Stage, net: Net) -> int:
    """Take every affected row out of the target and put its final image in: works in any order of keys and values."""
    target = stage.target
    if target.deletes_cascade and not session.replica:
        raise SetupError(
            f"{target.table.id}: keys or unique values swap, so rows must be taken out and put back, and foreign "
            "keys of the target would carry that over to other tables",
            hint="let cdcrep's role switch them off: GRANT SET ON PARAMETER session_replication_role TO the role",
        )
    rows, unknown, match = net.rows, Unknown.of(net.unknown, net.rows.num_rows), _before(net)
    stage.fill_rows(session, staged_columns(target, rows, unknown, match), rows.num_rows)
    images = f"pg_temp.cdcrep_images_{stage.number}"
    found = _take_images(session, stage, unknown, images)
    for condition in (on_key(stage), _on_match(stage)):
        session.execute(f"DELETE FROM {target.name} t USING {stage.images} s WHERE {condition}")
    names = [target.table.columns[i].name for i in target.written] + target.own
    session.execute(
        f"INSERT INTO {target.name} ({listed(names)}) OVERRIDING SYSTEM VALUE "
        f"SELECT {', '.join(f'i.{_image(i)}' for i in range(len(names)))} FROM {images} i"
    )
    session.execute(f"DROP TABLE {images}")
    return _insert_missing(session, stage, unknown, rows.num_rows - found) - int(match.column(0).null_count)


def _take_images(session: Session, stage: Stage, unknown: Unknown, images: str) -> int:
    """Collect the final images of rows that are in the target, with its own columns; return how many there are."""
    target = stage.target
    values = [unknown.value(i, f"t.{target.column(i)}") for i in target.written]
    values += [f"t.{quote(name)}" for name in target.own]
    columns = ", ".join(f"{value} AS {_image(i)}" for i, value in enumerate(values))
    return _count(
        session,
        f"CREATE TEMPORARY TABLE {images} ON COMMIT DROP AS "
        f"SELECT {columns} FROM {stage.images} s JOIN {target.name} t ON {_on_match(stage)}",
    )


def _image(index: int) -> str:
    return f"i{index}"


def _match(net: Net, which: Mask) -> pa.Table:
    assert net.match is not None
    return net.match.filter(pa.array(which))


def _before(net: Net) -> pa.Table:
    """Return the keys under which the rows stood before; null for rows that did not exist."""
    if net.match is not None:
        return net.match
    key = net.rows.select(list(net.table.key_positions))
    before = [pc.if_else(pa.array(net.fresh), pa.scalar(None, column.type), column) for column in key.columns]
    return pa.table(before, names=key.column_names)


def on_key(stage: Stage) -> str:
    """Return the condition that a row `t` of the target has the key of a staged row `s`."""
    key = stage.target.table.key_positions
    return stage.match.same([f"t.{stage.target.column(i)}" for i in key], [f"s.c{i}" for i in key])


def _on_match(stage: Stage) -> str:
    key = stage.target.table.key_positions
    return stage.match.same([f"t.{stage.target.column(i)}" for i in key], [f"s.m{k}" for k in range(len(key))])


def _count(session: Session, statement: str) -> int:
    count: int = session.execute(statement).rowcount
    return count
