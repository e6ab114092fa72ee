"""Writes an ENUM's 0, the value that was none of the labels and reads as an empty text.

Strict mode takes it neither as a text nor as a number, on no server. Without strict mode a server stores it with a
warning for each value, and with other warnings whatever else it changes: the warnings are counted and compared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pymysql.constants import ER

from cdcrep_connectors.mysql.bulk_values import NamedRows
from cdcrep_connectors.mysql.column_text import LARGE
from cdcrep_connectors.mysql.same_family import own_type

TRUNCATED: Final = re.compile(r"Data truncated for column '(.*)' at row \d+", re.DOTALL)


def divided(rows: NamedRows) -> tuple[NamedRows, NamedRows | None]:
    """Part rows with an empty text in an ENUM from all others; None: there are none."""
    found = np.zeros(rows.count, np.bool_)
    for values in _enums(rows).values():
        found |= _is_empty(values)
    if not found.any():
        return rows, None
    return _chosen(rows, ~found), _chosen(rows, found)


def in_pieces(rows: NamedRows, most: int) -> Iterator[NamedRows]:
    """Cut rows so that each piece causes at most so many warnings, which a server shows of a statement."""
    step = max(most // max(len(_enums(rows)), 1), 1)
    for start in range(0, rows.count, step):
        values = [column.slice(start, step) for column in rows.values]
        yield replace(rows, values=values, count=min(step, rows.count - start))


def expected(rows: NamedRows) -> Mapping[str, int]:
    """Return how many empty texts each ENUM holds, by the column's name."""
    return {name: int(_is_empty(values).sum()) for name, values in _enums(rows).items()}


def unexpected(warnings: Sequence[tuple[Any, ...]], allowed: Mapping[str, int]) -> tuple[int, str] | None:
    """Return number and message of a warning that no empty text explains; None: the server changed nothing else.

    A column that warns of none of its empty texts is of text in the target.
    """
    counts: Counter[str] = Counter()
    for _, number, message in warnings:
        match = TRUNCATED.fullmatch(message) if number == ER.WARN_DATA_TRUNCATED else None
        if match is None or match[1] not in allowed:
            return number, message
        counts[match[1]] += 1
    wrong = next((name for name, count in counts.items() if count != allowed[name]), None)
    return None if wrong is None else (ER.WARN_DATA_TRUNCATED, f"Data truncated for column '{wrong}'")


def _enums(rows: NamedRows) -> dict[str, pa.ChunkedArray]:
    return {
        name[1:-1].replace("``", "`") if name.startswith("`") else name: values
        for name, column, values in zip(rows.names, rows.columns, rows.values, strict=True)
        if (own_type(column.type, rows.table.dialect) or "").startswith("ENUM(")
    }


def _is_empty(values: pa.ChunkedArray) -> Any:
    return pc.fill_null(pc.equal(values.cast(LARGE), ""), False).to_numpy()


def _chosen(rows: NamedRows, mask: Any) -> NamedRows:
    chosen = pa.array(mask)
    return replace(rows, values=[column.filter(chosen) for column in rows.values], count=int(mask.sum()))
