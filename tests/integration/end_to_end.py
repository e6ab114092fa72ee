"""Runs the whole engine in this process, from a PostgreSQL source into any target, and compares both as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import duckdb
import psycopg
from psycopg import sql

from cdcrep.config import load
from cdcrep.progress import LogLines
from cdcrep.selection import Selection
from cdcrep.supervise import Supervisor
from cdcrep.table import TableId
from tests.servers.database import Database, RunningServer

PINNED: Final = (
    "-c TimeZone=UTC -c lc_monetary=C -c DateStyle=ISO -c IntervalStyle=postgres -c extra_float_digits=1 "
    "-c bytea_output=hex -c quote_all_identifiers=off -c xmlbinary=base64 -c search_path="
)
"""Both sides write their values with the same settings."""

Rows = list[tuple[Any, ...]]

Place = Literal["duckdb", "postgresql-14", "postgresql-18"]
PLACES: Final[tuple[Place, ...]] = ("duckdb", "postgresql-14", "postgresql-18")


@dataclass
class Replicated:
    """A source database and one target of it; its methods read both and bring the target up to date."""

    source: Database
    directory: Path
    target: Database | None
    """None: a DuckDB file."""
    include: Sequence[str] = ("*",)
    target_options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def into(
        cls, place: Place, source: Database, directory: Path, servers: Callable[[int], RunningServer]
    ) -> Replicated:
        """Replicate into a fresh DuckDB file, or a fresh database of a PostgreSQL server; `close` drops it."""
        target = None if place == "duckdb" else Database.create(servers(int(place.rpartition("-")[2])))
        return cls(source, directory, target)

    @property
    def file(self) -> Path:
        """The DuckDB file."""
        return self.directory / "target.duckdb"

    @property
    def target_url(self) -> str:
        """The target's URL."""
        return self.target.url if self.target else f"duckdb:///{self.file}"

    def catch_up(self) -> None:
        """Replicate what was committed so far; the first time with the first copy."""
        options = "".join(f"{name} = {json.dumps(value)}\n" for name, value in self.target_options.items())
        path = self.directory / "pipeline.toml"
        path.write_text(
            f'name = "{self.source.name}"\nmax_retries = 0\n[source]\nurl = "{self.source.url}"\n'
            f'[target]\nurl = "{self.target_url}"\n{options}'
            f"[tables]\ninclude = {json.dumps(list(self.include), ensure_ascii=False)}\n"
        )
        Supervisor(load(path), events=LogLines("end to end"), until_current=True).run()

    def close(self) -> None:
        """Drop the target database."""
        if self.target:
            self.target.drop()

    def run_on_target(self, statement: str) -> Rows:
        """Run a statement in the target as its owner would."""
        if self.target:
            return self.target.execute(statement)
        with duckdb.connect(str(self.file)) as connection:
            return connection.execute(statement).fetchall()

    def tables(self) -> list[tuple[str, str]]:
        """List the source's tables, partitioned ones as one."""
        return self.source.execute(
            "SELECT nspname::text, relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE relkind IN ('r', 'p') AND NOT relispartition "
            "AND nspname NOT IN ('pg_catalog', 'information_schema', 'cdcrep') ORDER BY 1, 2"
        )

    def columns(self, table: tuple[str, str]) -> list[str]:
        """List a source table's columns that are replicated: not those it computes."""
        found = self.source.execute(
            "SELECT attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid "
            "JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relname = %s "
            "AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
            *table,
        )
        return [name for (name,) in found]

    def source_rows(self, table: tuple[str, str]) -> list[str]:
        """Read a source table's rows as sorted texts, as the types' output functions write them."""
        return _texts(self.source, table, self.columns(table))

    def target_rows(self, table: tuple[str, str]) -> list[str]:
        """Read the same columns of the target table, NULL told apart from a text."""
        columns = self.columns(table)
        if self.target:
            return _texts(self.target, table, columns)
        with duckdb.connect(str(self.file), read_only=True) as connection:
            names = ", ".join(f"{_quoted(name)}::VARCHAR" for name in columns) or "1"
            found = connection.execute(f"SELECT {names} FROM {_quoted(table[0])}.{_quoted(table[1])}").fetchall()
        return sorted(_row(row if columns else ()) for row in found)

    def assert_equal(self) -> None:
        """Compare every table, row by row."""
        selected = Selection(tuple(self.include))
        for table in self.tables():
            if TableId(*table) not in selected:
                continue
            source, target = self.source_rows(table), self.target_rows(table)
            assert source == target, (
                f"{table}: missing {str(sorted(set(source) - set(target)))[:900]}, "
                f"too many {str(sorted(set(target) - set(source)))[:900]}, {len(source)} against {len(target)} rows"
            )


def _texts(database: Database, table: tuple[str, str], columns: Sequence[str]) -> list[str]:
    # Not a cast to text, which strips the padding of char(n) and writes boolean and inet in another form.
    output = sql.SQL("CASE WHEN {0} IS DISTINCT FROM NULL THEN format('%s', {0}) END")
    values = sql.SQL(", ").join(output.format(sql.Identifier(name)) for name in columns)
    with psycopg.connect(database.dsn, options=PINNED) as connection:
        found = connection.execute(sql.SQL("SELECT {} FROM {}").format(values, sql.Identifier(*table))).fetchall()
    return sorted(map(_row, found))


def _row(row: tuple[Any, ...]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
