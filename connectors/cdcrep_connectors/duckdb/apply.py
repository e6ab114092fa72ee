"""The net effect of changes on one target table: deletes by key, then inserts, whatever the target's size.

A key's row is never changed in place: DuckDB rewrites whole row groups for that. Deleting and inserting costs the same
on large tables as on small ones, but then the values that the batch does not carry (unchanged cells, the target's own
columns) have to be read from the target before the delete.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection

from cdcrep.errors import DivergedError
from cdcrep.fold import Net, NetRows
from cdcrep_connectors.duckdb.rows import are_few, as_parameters, offered
from cdcrep_connectors.duckdb.shape import Target, quote
from cdcrep_connectors.duckdb.statements import changed, first_row
from cdcrep_connectors.duckdb.types import EQUAL_BUT_DIFFERENT
from cdcrep_connectors.relational.recovery import copy_again

CARRIED = "temp.main.cdcrep_carried"


def apply_net(connection: DuckDBPyConnection, target: Target, net: Net) -> None:
    """Apply what happened to a table with a key."""
    if net.truncated:
        connection.execute(f"TRUNCATE {target.name}")
    keys = net.rows.select(list(target.table.key_positions))
    gone = [part for part in (net.deletes, keys) if part.num_rows]
    carried = bool(net.rows.num_rows) and (bool(net.unknown) or bool(target.own))
    if carried:
        _carry(connection, target, net)
    for part in _joined(gone):
        _delete(connection, target, part)
    if carried:
        _insert_carried(connection, target)
    elif net.rows.num_rows:
        insert(connection, target, net.rows)


def apply_rows(connection: DuckDBPyConnection, target: Target, net: NetRows) -> None:
    """Apply what happened to a table without a key."""
    if net.truncated:
        connection.execute(f"TRUNCATE {target.name}")
    if net.removed.num_rows:
        removed = _remove(connection, target, net)
        if removed != int(net.counts.sum()):
            raise DivergedError(
                f"{target.table.id}: {int(net.counts.sum()) - removed} rows that were deleted or changed at the source "
                "are not in the target",
                hint=f"find out what changed the target; {copy_again(target.table.id)}",
            )
    if net.added.num_rows:
        insert(connection, target, net.added)


def insert(connection: DuckDBPyConnection, target: Target, rows: pa.Table) -> None:
    """Insert rows of all the source's columns."""
    columns = list(zip(target.table.columns, target.types, strict=True))
    into = f"INSERT INTO {target.name} ({_names(target)})"
    if are_few(rows):
        expressions, parameters = as_parameters(rows, columns)
        lines = ["(" + ", ".join(row) + ")" for row in expressions]
        changed(connection, f"{into} VALUES {', '.join(lines)}", parameters)
        return
    with offered(connection, rows) as r:
        values = ", ".join(r.value(i, column, type_) for i, (column, type_) in enumerate(columns))
        changed(connection, f"{into} SELECT {values} FROM {r.sql}")


def _names(target: Target) -> str:
    return ", ".join(quote(column.name) for column in target.table.columns)


def _joined(parts: Sequence[pa.Table]) -> Sequence[pa.Table]:
    """Join the parts if their columns are of the same Arrow types, so that the target is scanned once."""
    same = len(parts) > 1 and all(part.schema.types == parts[0].schema.types for part in parts)
    return [pa.concat_tables([part.rename_columns(parts[0].column_names) for part in parts])] if same else parts


def _delete(connection: DuckDBPyConnection, target: Target, keys: pa.Table) -> None:
    """Delete the rows under some keys."""
    table = target.table
    columns = [(column, target.types[i]) for column, i in zip(table.identity, table.key_positions, strict=True)]
    names = [quote(column.name) for column, _ in columns]
    if are_few(keys):
        # Constants let DuckDB skip row groups by their smallest and largest values.
        expressions, parameters = as_parameters(keys, columns)
        each = [" AND ".join(map("{} = {}".format, names, row)) for row in expressions]
        changed(connection, f"DELETE FROM {target.name} WHERE {' OR '.join(each)}", parameters)
        return
    with offered(connection, keys) as r:
        values = [r.value(i, column, type_) for i, (column, type_) in enumerate(columns)]
        found = f"({', '.join(names)}) IN (SELECT {', '.join(values)} FROM {r.sql})"
        changed(connection, f"DELETE FROM {target.name} WHERE {found}")


def _carry(connection: DuckDBPyConnection, target: Target, net: Net) -> None:
    """Put the final rows into a temporary table, completed by what the target holds under the keys before."""
    table, width = target.table, len(target.table.columns)
    identity = [(column, target.types[i]) for column, i in zip(table.identity, table.key_positions, strict=True)]
    before = net.match if net.match is not None else net.rows.select(list(table.key_positions))
    lacking = np.logical_or.reduce([*net.unknown.values(), np.zeros(len(net.rows), np.bool_)])
    masks = [pa.chunked_array([pa.array(mask)]) for mask in (lacking, *net.unknown.values())]
    arrays = [*net.rows.columns, *before.columns, *masks]
    lacks = width + len(identity)
    flag = {ordinal: f"r.c{lacks + 1 + i}" for i, ordinal in enumerate(net.unknown)}
    with offered(connection, pa.table(arrays, names=[f"c{i}" for i in range(len(arrays))])) as r:
        equal = [f"t.{quote(c.name)} = {r.value(width + i, c, type_)}" for i, (c, type_) in enumerate(identity)]
        values = []
        for i, column in enumerate(table.columns):
            value = r.value(i, column, target.types[i])
            if i in flag:
                value = f"CASE WHEN {flag[i]} THEN t.{quote(column.name)} ELSE {value} END"
            values.append(f"{value} AS {quote(column.name)}")
        values += [f"t.{quote(name)} AS {quote(name)}" for name in target.own]
        changed(
            connection,
            f"CREATE OR REPLACE TEMP TABLE cdcrep_carried AS SELECT {', '.join(values)}, "
            f"t.rowid IS NOT NULL AS cdcrep_found, r.c{lacks} AS cdcrep_lacks "
            f"FROM {r.sql} LEFT JOIN {target.name} t ON {' AND '.join(equal)}",
        )
    _check_carried(connection, target, len(net.rows))


def _check_carried(connection: DuckDBPyConnection, target: Target, expected: int) -> None:
    counted = first_row(
        connection, f"SELECT count(*), count(*) FILTER (cdcrep_lacks AND NOT cdcrep_found) FROM {CARRIED}"
    )
    assert counted
    if counted[0] != expected:
        raise DivergedError(
            f"{target.table.id}: the target holds a key more than once",
            hint=f"find out what changed the target; {copy_again(target.table.id)}",
        )
    if counted[1]:
        raise _incomplete(target, counted[1])


def _incomplete(target: Target, rows: int) -> DivergedError:
    return DivergedError(
        f"{target.table.id}: {rows} rows were updated at the source that are not in the target, and the source did not "
        "send all their values (it leaves unchanged large values out)",
        hint=copy_again(target.table.id),
    )


def _insert_carried(connection: DuckDBPyConnection, target: Target) -> None:
    names = _names(target)
    own = "".join(f", {quote(name)}" for name in target.own)
    changed(
        connection,
        f"INSERT INTO {target.name} ({names}{own}) SELECT {names}{own} FROM {CARRIED} WHERE cdcrep_found",
    )
    # New rows take the defaults of the target's own columns.
    changed(
        connection,
        f"INSERT INTO {target.name} ({names}) SELECT {names} FROM {CARRIED} WHERE NOT cdcrep_found",
    )
    connection.execute(f"DROP TABLE {CARRIED}")


def _remove(connection: DuckDBPyConnection, target: Target, net: NetRows) -> int:
    """Delete as many copies of each row as `counts` says; return how many rows were there to delete."""
    table = target.table
    numbered = pa.table(
        [*net.removed.columns, pa.array(net.counts), pa.array(np.arange(len(net.counts)))],
        names=[f"c{i}" for i in range(len(table.columns) + 2)],
    )
    count, number = f"r.c{len(table.columns)}", f"r.c{len(table.columns) + 1}"
    with offered(connection, numbered) as r:
        same = " AND ".join(
            _is_same(
                f"t.{quote(column.name)}", r.value(i, column, target.types[i]), column.type.kind in EQUAL_BUT_DIFFERENT
            )
            for i, column in enumerate(table.columns)
        )
        return changed(
            connection,
            f"DELETE FROM {target.name} WHERE rowid IN (SELECT id FROM (SELECT t.rowid AS id, {count} AS copies, "
            f"row_number() OVER (PARTITION BY {number} ORDER BY t.rowid) AS copy FROM {target.name} t JOIN {r.sql} "
            f"ON {same}) WHERE copy <= copies)",
        )


def _is_same(held: str, value: str, as_text: bool) -> str:
    return (
        f"CAST({held} AS VARCHAR) IS NOT DISTINCT FROM CAST({value} AS VARCHAR)"
        if as_text
        else (f"{held} IS NOT DISTINCT FROM {value}")
    )
