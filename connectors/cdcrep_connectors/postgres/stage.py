"""Temporary tables through which batches reach a target table: typed like it, filled by COPY, emptied by the commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdcrep.changes import Mask
from cdcrep.errors import DataError
from cdcrep.fold import encode
from cdcrep_connectors.postgres.key_match import KeyMatch
from cdcrep_connectors.postgres.session import Session
from cdcrep_connectors.postgres.target_tables import TargetTable

COLUMN_LIMIT: Final = 1600


@dataclass
class Stage:
    """The temporary tables of one target table in one session.

    `rows` holds images: column `c7` is the source's column 7, `m0` the first column of the key that finds the row,
    `u` a code that says which cells are unknown. `keys` holds keys only. The widest tables leave no room for `m…` and
    `u`: those then stand in `beside`, under the row's own key.
    """

    target: TargetTable
    match: KeyMatch
    number: int
    created: bool = False
    filled: set[str] = field(default_factory=set)
    """Temporary tables that hold rows in this transaction."""
    split: bool = False
    """A part of the images that were filled in last is in `beside`."""

    @property
    def rows(self) -> str:
        """The table of row images."""
        return f"pg_temp.cdcrep_rows_{self.number}"

    @property
    def keys(self) -> str:
        """The table of keys."""
        return f"pg_temp.cdcrep_keys_{self.number}"

    @property
    def beside(self) -> str:
        """The table of what has no room in `rows`."""
        return f"pg_temp.cdcrep_beside_{self.number}"

    @property
    def images(self) -> str:
        """What stands in FROM before the alias of the images that were filled in last."""
        if not self.split:
            return self.rows
        key = self.target.table.key_positions
        same = self.match.same([f"b.c{i}" for i in key], [f"r.c{i}" for i in key])
        extra = ", ".join(f"b.{name}" for name in [*(f"m{k}" for k in range(len(key))), "u"])
        return f"(SELECT r.*, {extra} FROM {self.rows} r JOIN {self.beside} b ON {same})"

    @property
    def has_room(self) -> bool:
        """Whether `rows` has room for `m…` and `u`."""
        return len(self.target.table.columns) + len(self.target.table.key) < COLUMN_LIMIT

    def create(self, session: Session) -> None:
        """Create the temporary tables, if they are not there; never inside a savepoint, whose end could undo it."""
        if self.created:
            return
        self.created = True
        key = self.target.table.key_positions
        columns = [f"c{i} {self.target.plain_type(i)}" for i in range(len(self.target.table.columns))]
        extra = [f"m{k} {self.target.plain_type(i)}" for k, i in enumerate(key)] + ["u integer"]
        self._create(session, self.rows, columns + extra if self.has_room else columns)
        if key:
            own = [f"c{i} {self.target.plain_type(i)}" for i in key]
            self._create(session, self.keys, own)
            if not self.has_room:
                unique = f"PRIMARY KEY ({', '.join(f'c{i}' for i in key)})"
                self._create(session, self.beside, [*own, *extra, unique])

    def _create(self, session: Session, name: str, columns: list[str]) -> None:
        session.execute(f"CREATE TEMPORARY TABLE {name} ({', '.join(columns)}) ON COMMIT DELETE ROWS")

    def drop(self, session: Session) -> None:
        """Drop the temporary tables."""
        session.execute(f"DROP TABLE IF EXISTS {self.rows}, {self.keys}, {self.beside}")

    def fill(self, session: Session, name: str, columns: Mapping[str, pa.ChunkedArray], rows: int) -> None:
        """Replace what a temporary table holds."""
        if name in self.filled:
            session.execute(f"TRUNCATE {name}")
        self.filled.add(name)
        session.copy(f"COPY {name} ({', '.join(columns)}) FROM STDIN", list(columns.values()), rows)

    def fill_rows(self, session: Session, columns: Mapping[str, pa.ChunkedArray], rows: int) -> None:
        """Replace the images; the columns of the key are among them."""
        apart = set() if self.has_room else {name for name in columns if not name.startswith("c")}
        self.split = bool(apart)
        if apart:
            apart |= {f"c{i}" for i in self.target.table.key_positions}
            self.fill(session, self.beside, {name: columns[name] for name in columns if name in apart}, rows)
            columns = {name: values for name, values in columns.items() if name.startswith("c")}
        self.fill(session, self.rows, columns, rows)


@dataclass(frozen=True)
class Unknown:
    """Which staged cells keep the target's value: every combination of unknown columns has a code, 0 is none."""

    codes: np.ndarray[tuple[int], np.dtype[np.int32]]
    """(rows,) value of the stage's column `u`."""
    columns: Mapping[int, list[int]]
    """Column ordinal -> codes in which its cell is unknown."""
    everywhere: frozenset[int]
    """Columns that no row knows."""

    @staticmethod
    def of(unknown: Mapping[int, Mask], rows: int) -> Unknown:
        """Number the combinations of unknown cells."""
        masks = {i: mask for i, mask in unknown.items() if mask.any()}
        if not masks:
            return Unknown(np.zeros(rows, np.int32), {}, frozenset())
        flags = pa.table([pa.array(mask) for mask in masks.values()], names=[str(i) for i in masks])
        codes, count = encode(flags, rows)
        example = np.empty(count, np.int64)
        example[codes] = np.arange(rows)
        known = ~np.logical_or.reduce(list(masks.values()))
        numbers = np.arange(1, count + 1)
        numbers[known[example]] = 0
        columns = {i: sorted(numbers[mask[example]].tolist()) for i, mask in masks.items()}
        everywhere = frozenset(i for i, mask in masks.items() if mask.all())
        return Unknown(numbers[codes].astype(np.int32), columns, everywhere)

    def value(self, ordinal: int, target: str) -> str:
        """Return the SQL expression of a column's value after the change; `target` is that of its value before."""
        codes = self.columns.get(ordinal)
        if not codes:
            return f"s.c{ordinal}"
        return f"CASE WHEN s.u IN ({', '.join(map(str, codes))}) THEN {target} ELSE s.c{ordinal} END"


def staged_columns(
    target: TargetTable, rows: pa.Table, unknown: Unknown | None, match: pa.Table | None = None
) -> dict[str, pa.ChunkedArray]:
    """Name the columns that a stage's `rows` gets."""
    columns = {f"c{i}": rows.column(i) for i in target.written if unknown is None or i not in unknown.everywhere}
    if match is not None:
        columns |= {f"m{k}": match.column(k) for k in range(match.num_columns)}
    if unknown is not None and unknown.columns:
        if not set(unknown.columns).isdisjoint(target.table.key_positions):
            raise DataError(f"{target.table.id}: a change lacks a value of the key")
        columns["u"] = pa.chunked_array([pc.cast(pa.array(unknown.codes), pa.string())])
    return columns
