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
from cdcrep.table import Column
from cdcrep_connectors.duckdb.rows import FEW_KEYS, FEW_ROWS, Relation, are_few, as_parameters, offered
from cdcrep_connectors.duckdb.shape import Target, quote
from cdcrep_connectors.duckdb.statements import changed
from cdcrep_connectors.duckdb.types import EQUAL_BUT_DIFFERENT
from cdcrep_connectors.relational.recovery import copy_again

CARRIED = "temp.main.cdcrep_carried"


def apply_net(connection: DuckDBPyConnection, target: Target, net: Net) -> None:
    """Apply what happened to a table with a key."""
    if net.truncated:
        connection.execute(f"TRUNCATE {target.name}")
    if net.rows.num_rows and (net.unknown or target.own):
        _carry(connection, target, net)
        _delete_carried(connection, target, net)
        _insert_carried(connection, target, len(net.rows))
        return
    if not net.deletes.num_rows and net.rows.num_rows:
        _replace(connection, target, net.rows)
        return
    _delete_all(connection, target, [net.deletes, net.rows.select(list(target.table.key_positions))])
    if net.rows.num_rows:
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
    if are_few(rows, FEW_ROWS):
        _insert_few(connection, target, rows)
        return
    with offered(connection, rows) as r:
        _insert_offered(connection, target, r)


def _delete_all(connection: DuckDBPyConnection, target: Target, parts: Sequence[pa.Table]) -> None:
    """Delete the rows under some keys, if they are of the same Arrow types in one scan of the target."""
    parts = [part for part in parts if part.num_rows]
    if len(parts) > 1 and all(part.schema.types == parts[0].schema.types for part in parts):
        parts = [pa.concat_tables([part.rename_columns(parts[0].column_names) for part in parts])]
    for keys in parts:
        if are_few(keys, FEW_KEYS):
            _delete_few(connection, target, keys)
            continue
        with offered(connection, keys) as r:
            _delete_offered(connection, target, r, range(keys.num_columns))


def _replace(connection: DuckDBPyConnection, target: Target, rows: pa.Table) -> None:
    """Put rows in the place of those under their keys."""
    positions = target.table.key_positions
    keys = rows.select(list(positions))
    if are_few(keys, FEW_KEYS):
        _delete_few(connection, target, keys)
        insert(connection, target, rows)
        return
    with offered(connection, rows) as r:
        _delete_offered(connection, target, r, positions)
        _insert_offered(connection, target, r)


def _insert_few(connection: DuckDBPyConnection, target: Target, rows: pa.Table) -> None:
    expressions, parameters = as_parameters(rows, list(zip(target.table.columns, target.types, strict=True)))
    lines = ["(" + ", ".join(row) + ")" for row in expressions]
    changed(connection, f"INSERT INTO {target.name} ({_names(target)}) VALUES {', '.join(lines)}", parameters)


def _insert_offered(connection: DuckDBPyConnection, target: Target, r: Relation) -> None:
    columns = zip(target.table.columns, target.types, strict=True)
    values = ", ".join(r.value(i, column, type_) for i, (column, type_) in enumerate(columns))
    changed(connection, f"INSERT INTO {target.name} ({_names(target)}) SELECT {values} FROM {r.sql}", r.parameters)


def _delete_few(connection: DuckDBPyConnection, target: Target, keys: pa.Table) -> None:
    columns = _identity(target)
    names = [quote(column.name) for column, _ in columns]
    # Constants let DuckDB skip row groups by their smallest and largest values.
    expressions, parameters = as_parameters(keys, columns)
    if len(names) == 1:
        condition = f"{names[0]} IN ({', '.join(row[0] for row in expressions)})"
    else:
        condition = " OR ".join(" AND ".join(map("{} = {}".format, names, row)) for row in expressions)
    changed(connection, f"DELETE FROM {target.name} WHERE {condition}", parameters)


def _delete_offered(connection: DuckDBPyConnection, target: Target, r: Relation, positions: Sequence[int]) -> None:
    """Delete the rows whose key stands in these columns of what is offered."""
    columns = _identity(target)
    names = ", ".join(quote(column.name) for column, _ in columns)
    values = ", ".join(r.value(i, column, type_) for i, (column, type_) in zip(positions, columns, strict=True))
    changed(connection, f"DELETE FROM {target.name} WHERE ({names}) IN (SELECT {values} FROM {r.sql})", r.parameters)


def _identity(target: Target) -> list[tuple[Column, str]]:
    """Return the key's columns with their types in the target."""
    table = target.table
    return [(column, target.types[i]) for column, i in zip(table.identity, table.key_positions, strict=True)]


def _names(target: Target) -> str:
    return ", ".join(quote(column.name) for column in target.table.columns)


def _carry(connection: DuckDBPyConnection, target: Target, net: Net) -> None:
    """Put the final rows into a temporary table, completed by what the target holds under the keys before."""
    table, width = target.table, len(target.table.columns)
    identity = _identity(target)
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
        carried = changed(
            connection,
            f"CREATE OR REPLACE TEMP TABLE cdcrep_carried AS SELECT {', '.join(values)}, "
            f"t.rowid AS cdcrep_row, r.c{lacks} AS cdcrep_lacks "
            f"FROM {r.sql} LEFT JOIN {target.name} t ON {' AND '.join(equal)}",
            r.parameters,
        )
    if carried != len(net.rows):
        raise DivergedError(
            f"{table.id}: the target holds a key more than once",
            hint=f"find out what changed the target; {copy_again(table.id)}",
        )


def _delete_carried(connection: DuckDBPyConnection, target: Target, net: Net) -> None:
    if net.match is not None:
        # Rows have moved: the keys that they left stand in `deletes` or are another row's.
        _delete_all(connection, target, [net.deletes, net.rows.select(list(target.table.key_positions))])
        return
    changed(connection, f"DELETE FROM {target.name} WHERE rowid IN (SELECT cdcrep_row FROM {CARRIED})")
    _delete_all(connection, target, [net.deletes])


def _insert_carried(connection: DuckDBPyConnection, target: Target, expected: int) -> None:
    names = _names(target)
    own = "".join(f", {quote(name)}" for name in target.own)

    def add(columns: str, where: str) -> int:
        sql = f"INSERT INTO {target.name} ({columns}) SELECT {columns} FROM {CARRIED} WHERE {where}"
        return changed(connection, sql)

    # New rows take the defaults of the target's own columns; they must not lack a value.
    if own:
        written = add(names + own, "cdcrep_row IS NOT NULL") + add(names, "cdcrep_row IS NULL AND NOT cdcrep_lacks")
    else:
        written = add(names, "cdcrep_row IS NOT NULL OR NOT cdcrep_lacks")
    if written != expected:
        raise DivergedError(
            f"{target.table.id}: {expected - written} rows were updated at the source that are not in the target, and "
            "the source did not send all their values (it leaves unchanged large values out)",
            hint=copy_again(target.table.id),
        )
    connection.execute(f"DROP TABLE {CARRIED}")


def _remove(connection: DuckDBPyConnection, target: Target, net: NetRows) -> int:
    """Delete as many copies of each row as `counts` says; return how many rows were there to delete."""
    table = target.table
    if are_few(net.removed, FEW_KEYS):
        return _remove_few(connection, target, net)
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
            r.parameters,
        )


def _remove_few(connection: DuckDBPyConnection, target: Target, net: NetRows) -> int:
    """Do the same row by row: comparisons with constants let DuckDB skip row groups, where a join reads the table."""
    columns = list(zip(target.table.columns, target.types, strict=True))
    removed = 0
    for number, count in enumerate(net.counts):
        (values,), parameters = as_parameters(net.removed.slice(number, 1), columns)
        same = " AND ".join(
            _is_constant(quote(column.name), value, parameter, column.type.kind in EQUAL_BUT_DIFFERENT)
            for (column, _), value, parameter in zip(columns, values, parameters, strict=True)
        )
        rows = f"SELECT rowid FROM {target.name} WHERE {same} ORDER BY rowid LIMIT {count}"
        removed += changed(connection, f"DELETE FROM {target.name} WHERE rowid IN ({rows})", parameters)
    return removed


def _is_constant(held: str, value: str, parameter: str | None, as_text: bool) -> str:
    """Write `_is_same` for a value that is known, in a form that row groups' statistics can refute."""
    if parameter is None:
        return f"{held} IS NULL AND {value} IS NULL"
    return f"CAST({held} AS VARCHAR) = CAST({value} AS VARCHAR)" if as_text else f"{held} = {value}"


def _is_same(held: str, value: str, as_text: bool) -> str:
    return (
        f"CAST({held} AS VARCHAR) IS NOT DISTINCT FROM CAST({value} AS VARCHAR)"
        if as_text
        else (f"{held} IS NOT DISTINCT FROM {value}")
    )
