"""Compares the shop with its copy, row by row and value by value, without any of cdcrep's own code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import duckdb

from cdcrep.demo.shop import Connection, Shop

# How the copy's values are written; the shop's own SQL writes the source's such that equal values give equal text.
DUCKDB_TEXT: Final = {
    "TIMESTAMP WITH TIME ZONE": "epoch_us({})::VARCHAR",
    "LIST": "to_json({})::VARCHAR",
}
# Each value preceded by its length: no value can be taken for a part of its neighbour, nor for NULL.
FRAMED: Final = "coalesce(length({0}) || ':' || {0}, 'NULL')"

COLUMNS: Final = """
SELECT column_name, CASE WHEN data_type LIKE '%[]' THEN 'LIST' ELSE data_type END FROM duckdb_columns()
WHERE schema_name = 'shop' AND table_name = $1
"""
SEQUENCES: Final = """
SELECT e.writer, c.value, count(*), count(DISTINCT seq), min(seq), max(seq)
FROM shop.events e LEFT JOIN shop.counters c USING (writer) WHERE e.writer IS NOT NULL GROUP BY ALL
"""


@dataclass
class TableVerdict:
    """How one table's copy differs from the original, in rows."""

    table: str
    rows: int
    lost: int
    """In the source and not in the copy: by key, or for a table without one by the whole row."""
    duplicated: int
    """More often in the copy than in the source, where they are too."""
    altered: int
    """In both, with another value."""
    surplus: int
    """In the copy alone."""

    @property
    def equal(self) -> bool:
        """The copy is exact."""
        return not (self.lost or self.duplicated or self.altered or self.surplus)

    def __str__(self) -> str:
        """Name the table and what is wrong with it."""
        wrong = {name: getattr(self, name) for name in ("lost", "duplicated", "altered", "surplus")}
        return f"shop.{self.table}: " + ", ".join(f"{count:,} rows {name}" for name, count in wrong.items() if count)


@dataclass
class SequenceVerdict:
    """What the copy holds of one writer's sequence, beside the number of transactions its writer saw committed."""

    writer: int
    committed: int
    lost: int
    duplicated: int
    counter: int | None
    """The copy's counter, which every transaction raised by one."""

    @property
    def equal(self) -> bool:
        """Every committed transaction is there once."""
        return not (self.lost or self.duplicated) and self.counter == self.committed

    def __str__(self) -> str:
        """Name the writer and what is wrong."""
        return (
            f"writer {self.writer}: {self.committed:,} transactions were committed; in the copy {self.lost:,} are "
            f"missing, {self.duplicated:,} stand twice, the counter says {self.counter}"
        )


@dataclass
class Verdict:
    """The whole comparison."""

    tables: list[TableVerdict] = field(default_factory=list)
    sequences: list[SequenceVerdict] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows of the source that were compared."""
        return sum(table.rows for table in self.tables)

    @property
    def parts(self) -> Sequence[TableVerdict | SequenceVerdict]:
        """Every single verdict."""
        return [*self.tables, *self.sequences]

    @property
    def lost(self) -> int:
        """Rows and writers' transactions that are missing in the copy."""
        return sum(part.lost for part in self.parts)

    @property
    def duplicated(self) -> int:
        """Rows and writers' transactions that the copy has too often."""
        return sum(part.duplicated for part in self.parts)

    @property
    def altered(self) -> int:
        """Rows of the copy that differ from the source's in some value, or that the source does not have."""
        return sum(table.altered + table.surplus for table in self.tables)

    @property
    def complaints(self) -> list[str]:
        """What is wrong, a line each; empty: nothing."""
        return [str(part) for part in self.parts if not part.equal]


def compare(
    shop: Shop,
    source: Connection,
    copy: Path,
    tables: Sequence[str],
    committed: Mapping[int, int],
    tell: Callable[[str, int], None] = lambda _table, _rows: None,
) -> Verdict:
    """Compare tables of the schema `shop` with a DuckDB file, and the writers' sequences in it with `committed`.

    `committed` says how many transactions each writer saw committed; `tell` learns each table and its rows.
    """
    verdict = Verdict()
    with duckdb.connect(str(copy), read_only=True) as target:
        for table in tables:
            verdict.tables.append(_compare_table(shop, source, target, table))
            tell(table, verdict.tables[-1].rows)
        verdict.sequences = _compare_sequences(target, committed)
    return verdict


def _compare_table(shop: Shop, source: Connection, target: duckdb.DuckDBPyConnection, table: str) -> TableVerdict:
    columns = shop.columns(source, table)
    key = shop.key(source, table) or [*columns]
    copied = dict(target.execute(COLUMNS, [table]).fetchall())
    query = f"SELECT {{}}, {{}} FROM shop.{table}"
    ours = query.format(shop.text({name: columns[name] for name in key}), shop.text(columns))
    theirs = query.format(_text({name: copied[name] for name in key}), _text({name: copied[name] for name in columns}))
    return _judge(table, source.execute(ours.encode()).fetchall(), target.execute(theirs).fetchall())


def _text(columns: Mapping[str, str]) -> str:
    values = (DUCKDB_TEXT.get(type_, "{}::VARCHAR").format(f'"{name}"') for name, type_ in columns.items())
    return " || ".join(FRAMED.format(value) for value in values)


def _judge(table: str, ours: Sequence[tuple[str, str]], theirs: Sequence[tuple[str, str]]) -> TableVerdict:
    keys, copied_keys = Counter(key for key, _ in ours), Counter(key for key, _ in theirs)
    lost = (keys - copied_keys).total()
    surplus = copied_keys - keys
    duplicated = sum(count for key, count in surplus.items() if key in keys)
    differing = (Counter(row for _, row in ours) - Counter(row for _, row in theirs)).total()
    # Every lost row differs too; a row that is there twice in place of itself does not.
    return TableVerdict(table, len(ours), lost, duplicated, differing - lost, surplus.total() - duplicated)


def _compare_sequences(target: duckdb.DuckDBPyConnection, committed: Mapping[int, int]) -> list[SequenceVerdict]:
    found = {writer: rest for writer, *rest in target.execute(SEQUENCES).fetchall()}
    verdicts = []
    for writer in sorted({*committed, *found}):
        expected = committed.get(writer, 0)
        counter, count, distinct, first, last = found.get(writer, (None, 0, 0, 1, 0))
        # The numbers run from 1 to `expected`; what lies outside never was committed and shows as a wrong counter.
        inside = distinct if first >= 1 and last <= expected else 0
        verdicts.append(SequenceVerdict(writer, expected, expected - inside, count - distinct, counter))
    return verdicts
