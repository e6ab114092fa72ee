"""Says what to do with geometries that MariaDB holds and MySQL does not take: open polygons, lines of one point."""

from __future__ import annotations

from cdcrep.errors import DataError
from cdcrep_connectors.mysql.bulk_values import NamedRows
from cdcrep_connectors.mysql.same_family import is_geometry, own_type
from cdcrep_connectors.mysql.target_names import qualify, quote


def refused_geometry(rows: NamedRows) -> DataError:
    """Return the error of rows that hold a geometry which the target refuses; it does not say in which column."""
    names = [
        column.name for column in dict.fromkeys(rows.columns) if is_geometry(own_type(column.type, rows.table.dialect))
    ]
    changes = ", ".join(f"MODIFY {quote(name)} LONGBLOB" for name in names)
    return DataError(
        f"{rows.table.id}: the target does not take a geometry of column {' or '.join(map(repr, names))}",
        hint=f"ALTER TABLE {qualify(rows.table.id)} {changes};  -- in the target, to hold the source's bytes",
    )
