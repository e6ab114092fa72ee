"""Runs the whole engine in this process, from a PostgreSQL source into any target, and compares both as text."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
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
TableName = tuple[str, str]
"""Schema and name."""

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

    def catch_up(self, **settings: int) -> None:
        """Replicate what was committed so far; the first time with the first copy. `settings`: the pipeline's own."""
        path = self.directory / "pipeline.toml"
        path.write_text(
            f'name = "{self.source.name}"\n{_lines({"max_retries": 0, **settings})}'
            f'[source]\nurl = "{self.source.url}"\n'
            f'[target]\nurl = "{self.target_url}"\n{_lines(self.target_options)}'
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

    def tables(self) -> dict[TableName, list[str]]:
        """List the source's tables, partitioned ones as one, each with its columns but those that it computes."""
        found = self.source.execute(
            "SELECT nspname::text, relname::text, ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid "
            "AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum) "
            "FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE relkind IN ('r', 'p') AND NOT relispartition "
            "AND nspname NOT IN ('pg_catalog', 'information_schema', 'cdcrep') ORDER BY 1, 2"
        )
        return {(schema, name): columns for schema, name, columns in found}

    def target_rows(self, table: TableName) -> list[str]:
        """Read the columns that the source has of a target table, as sorted texts; NULL is told apart from a text."""
        with self._reading_target() as read:
            return read(table, self.tables()[table])

    def differences(self) -> dict[TableName, str]:
        """Compare every table, row by row; say of each that differs how it does."""
        selected = Selection(tuple(self.include))
        differing: dict[TableName, str] = {}
        with psycopg.connect(self.source.dsn, options=PINNED) as connection, self._reading_target() as read:
            for table, columns in self.tables().items():
                if TableId(*table) not in selected:
                    continue
                source, target = _postgres_rows(connection, table, columns), read(table, columns)
                if source != target:
                    differing[table] = (
                        f"missing {str(sorted(set(source) - set(target)))[:900]}, "
                        f"too many {str(sorted(set(target) - set(source)))[:900]}, "
                        f"{len(source)} against {len(target)} rows"
                    )
        return differing

    def assert_equal(self) -> None:
        """Compare every table, row by row."""
        assert self.differences() == {}

    @contextlib.contextmanager
    def _reading_target(self) -> Iterator[Callable[[TableName, Sequence[str]], list[str]]]:
        if self.target:
            with psycopg.connect(self.target.dsn, options=PINNED) as connection:
                yield functools.partial(_postgres_rows, connection)
        else:
            with duckdb.connect(str(self.file), read_only=True) as file:
                yield functools.partial(_duckdb_rows, file)


def _postgres_rows(
    connection: psycopg.Connection[tuple[Any, ...]], table: TableName, columns: Sequence[str]
) -> list[str]:
    # As the types' output functions write them: a cast to text strips the padding of char(n) and writes boolean and
    # inet in another form.
    output = sql.SQL("CASE WHEN {0} IS DISTINCT FROM NULL THEN format('%s', {0}) END")
    values = sql.SQL(", ").join(output.format(sql.Identifier(name)) for name in columns)
    found = connection.execute(sql.SQL("SELECT {} FROM {}").format(values, sql.Identifier(*table))).fetchall()
    return sorted(map(_row, found))


def _duckdb_rows(file: duckdb.DuckDBPyConnection, table: TableName, columns: Sequence[str]) -> list[str]:
    names = ", ".join(f"{_quoted(name)}::VARCHAR" for name in columns) or "1"
    found = file.execute(f"SELECT {names} FROM {_quoted(table[0])}.{_quoted(table[1])}").fetchall()
    return sorted(_row(row if columns else ()) for row in found)


def _row(row: tuple[Any, ...]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _lines(options: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())
