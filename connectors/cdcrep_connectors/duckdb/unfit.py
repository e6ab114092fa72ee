"""Finding the column whose values the target cannot hold, after a statement has failed for one."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from cdcrep.errors import DataError
from cdcrep.table import Column
from cdcrep_connectors.duckdb.failures import VALUE_ERRORS
from cdcrep_connectors.duckdb.rows import offered
from cdcrep_connectors.duckdb.shape import Target
from cdcrep_connectors.duckdb.statements import first_row
from cdcrep_connectors.relational.recovery import copy_again


def unfit(
    connection: duckdb.DuckDBPyConnection,
    target: Target,
    parts: Sequence[tuple[Sequence[int], pa.Table | None]],
    where: str,
) -> DataError:
    """Make the error that names the column; `parts` are rows and their columns' ordinals, `where` ends the message."""
    for ordinals, rows in parts:
        if rows is None:
            continue
        with offered(connection, rows.combine_chunks()) as relation:
            for i, ordinal in enumerate(ordinals):
                column, type_ = target.table.columns[ordinal], target.types[ordinal]
                try:
                    value = relation.value(i, column, type_)
                    first_row(connection, f"SELECT max(hash({value})) FROM {relation.sql}", relation.parameters)
                except VALUE_ERRORS:
                    return _error(target, column, type_, where)
    return DataError(f"{target.table.id}: a value cannot be held by the target{where}")


def _error(target: Target, column: Column, type_: str, where: str) -> DataError:
    name = f"{target.table.id}.{column.name}"
    return DataError(
        f"{target.table.id}: column {column.name!r}: "
        f"a value of type {column.type.native} cannot be held as {type_}{where}",
        hint=f'add as_text = ["{name}"] to [target]; {copy_again(target.table.id)}',
    )
