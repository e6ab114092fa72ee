"""The typed first copy into DuckDB gives what the copy in text form gives, and makes way for it where it cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import duckdb
import pytest

from cdcrep.connector import Chunk, Pipeline, Stream
from cdcrep.errors import DataError
from cdcrep.table import Kind
from cdcrep_connectors.duckdb.sink import DuckDBSink
from tests.integration.duckdb_target import EVERYTHING, open_sink, rows_of
from tests.integration.postgres_source import source
from tests.integration.test_duckdb_types import SESSION
from tests.integration.test_duckdb_types import VALUES as DUCKDB_VALUES
from tests.servers.database import Database

ONLY_AS_TEXT: Final = (
    *("timetz", "xml", "money", "bit(3)", "varbit", "inet", "macaddr8", "pg_lsn", "point", "tsvector"),
    *("int4range", "int4multirange"),
)
"""Types that only COPY itself knows how to write."""

USER_TYPES: Final = """
CREATE TYPE mood AS ENUM ('sad', 'so "so"', 'жизнь 🎉');
CREATE DOMAIN a_mood AS mood; CREATE DOMAIN a_price AS numeric(12,2); CREATE DOMAIN a_line AS text;
CREATE DOMAIN a_char AS "char"; CREATE DOMAIN a_moment AS timestamptz; CREATE DOMAIN a_list AS int[];
CREATE DOMAIN a_document AS jsonb; CREATE DOMAIN a_flag AS bool; CREATE DOMAIN nested AS a_line;
CREATE DOMAIN a_ratio AS float8;
"""

ODD_TEXTS: Final = ["\x01", "\x02", "\x01\x02\n", "\t\r\n", "\\N", "\\.", '""', " ", "🎉" * 3]

MORE: Final[Mapping[str, Sequence[str]]] = {
    "text": ODD_TEXTS,
    "varchar": ["", "\x01quoted\x01"],
    "real": ["1.1754944e-38", "3.4028235e+38", "16777217", "1e23"],
    "double precision": ["1e23", "9007199254740993", "2.2250738585072014e-308", "Infinity", "123456789.12345679"],
    '"char"': ["a", "\\351", ""],
    "timestamp": ["10000-01-01 00:00:00.000001", "4714-11-24 00:00:00 BC", "294247-01-10 04:00:54.775805"],
    "timestamptz": ["9999-12-31 23:59:59.999999+00", "294247-01-10 04:00:54.775806+00", "1969-12-31 23:59:59.9-01"],
    "date": ["10000-01-01", "4714-11-24 BC", "1969-12-31"],
    "json": [' {"a" :\n[ 1 ,2 ] }\t', "null"],
    "jsonb": ["null", '"ü"'],
    "int4[]": ["{NULL}"],
    "text[]": ['{NULL,"NULL","",a}'],
    "mood": ["sad", 'so "so"', "жизнь 🎉"],
    "mood[]": ['{sad,NULL,"so \\"so\\""}'],
    "a_mood": ["жизнь 🎉"],
    "a_price": ["0.10"],
    "a_line": ["two\nlines"],
    "nested": ["\x02"],
    "a_char": ["\\377", "b"],
    "a_moment": ["infinity", "0044-03-15 12:00:00.5+00 BC"],
    "a_list": ["{1,NULL,3}"],
    "a_document": ['{"a": [1, 2.50]}'],
    "a_flag": ["t", "f"],
    "a_ratio": ["-0", "NaN"],
}

VALUES: Final = {
    type_: [*DUCKDB_VALUES.get(type_, ()), *MORE.get(type_, ())]
    for type_ in dict.fromkeys([*DUCKDB_VALUES, *MORE])
    if type_ not in ONLY_AS_TEXT
}


def create_with_all_types(database: Database) -> None:
    """Create one table with a column per type; its rows hold one value of each, or null where there is none left."""
    columns = [f"c{i}" for i in range(len(VALUES))]
    declared = ", ".join(f"{name} {type_}" for name, type_ in zip(columns, VALUES, strict=True))
    casts = ", ".join(f"%s::text::{type_}" for type_ in VALUES)
    count = max(map(len, VALUES.values()))
    rows = [[values[i] if i < len(values) else None for values in VALUES.values()] for i in range(count)]
    with database.connect(options=SESSION) as connection:
        connection.execute(f"{USER_TYPES} CREATE TABLE t (id serial PRIMARY KEY, {declared})".encode())
        for row in [*rows, [None] * len(columns)]:
            connection.execute(f"INSERT INTO t ({', '.join(columns)}) VALUES ({casts})".encode(), row)


@contextmanager
def read(database: Database, **options: Any) -> Iterator[tuple[Chunk, Mapping[str, Stream]]]:
    """Read the only chunk of the only table, in all formats."""
    with source(database, **options) as opened:
        opened.set_up()
        snapshot = opened.start()
        (table,) = opened.tables()
        (chunk,) = snapshot.chunks(table, None)
        yield chunk, snapshot.read(chunk)


class Asked(dict[str, Stream]):
    """Formats, and the names of those that were asked for, in `names`."""

    def __init__(self, formats: Mapping[str, Stream]) -> None:
        super().__init__(formats)
        self.names: list[str] = []

    def __getitem__(self, name: str) -> Stream:
        self.names.append(name)
        return super().__getitem__(name)


def load(sink: DuckDBSink, chunk: Chunk, formats: Mapping[str, Stream]) -> list[str]:
    """Load a chunk with a loader of its own; return which formats were asked for."""
    loader, asked = sink.loader(), Asked(formats)
    try:
        loader.load(chunk, asked)
    finally:
        loader.close()
    return asked.names


def held(sink: DuckDBSink, chunk: Chunk) -> list[tuple[Any, ...]]:
    """Return what a target table holds, as text; floats as bits, too."""
    floats = [c.name for c in chunk.table.columns if c.type.kind in (Kind.FLOAT32, Kind.FLOAT64)]
    bits = "".join(f", CAST({name} AS BIT)::VARCHAR" for name in floats)
    return rows_of(sink, f"SELECT COLUMNS(*)::VARCHAR{bits} FROM {chunk.table.id} ORDER BY id")


def test_typed_columns_give_the_same_values_as_text(source_database: Database, tmp_path: Path) -> None:
    create_with_all_types(source_database)
    found = []

    with read(source_database) as (chunk, formats):
        for number, used in enumerate((("arrow",), ("arrow", "arrow-typed"))):
            sink = open_sink(tmp_path / f"target{number}.duckdb", chunk.table)
            assert load(sink, chunk, {name: formats[name] for name in used}) == [used[-1]]
            found.append(held(sink, chunk))
            sink.close()

    text, typed = found
    assert len(text) == max(map(len, VALUES.values())) + 1
    assert [(i, j) for i, row in enumerate(text) for j, value in enumerate(row) if typed[i][j] != value] == []
    assert text == typed


def test_types_that_only_the_server_can_write_are_not_offered_typed(source_database: Database) -> None:
    for number, type_ in enumerate(ONLY_AS_TEXT):
        source_database.execute(f"CREATE TABLE t{number} (id int PRIMARY KEY, v {type_})")

    with source(source_database) as opened:
        opened.set_up()
        snapshot = opened.start()
        chunks = [snapshot.chunks(table, None)[0] for table in opened.tables()]
        typed = [chunk.table.columns[1].type.native for chunk in chunks if "arrow-typed" in snapshot.read(chunk)]

    assert len(chunks) == len(ONLY_AS_TEXT)
    assert typed == []


LATE: Final = """
CREATE TABLE t (id int PRIMARY KEY, v timestamp, filler text DEFAULT repeat('x', 500));
INSERT INTO t SELECT g, now() FROM generate_series(1, 5000) AS g; INSERT INTO t VALUES (5001, '294276-12-31 23:59:59')
"""


def test_a_time_that_no_type_holds_is_refused_as_it_is_in_text_form(source_database: Database, tmp_path: Path) -> None:
    source_database.execute(LATE)
    messages = []

    with read(source_database) as (chunk, formats):
        for used in (("arrow",), ("arrow", "arrow-typed")):
            sink = open_sink(tmp_path / f"{len(used)}.duckdb", chunk.table)
            with pytest.raises(DataError, match=r"public\.t: column 'v': a value of type timestamp") as refused:
                load(sink, chunk, {name: formats[name] for name in used})
            messages.append((refused.value.message, refused.value.hint))
            assert rows_of(sink, "FROM public.t") == []
            sink.close()

    assert messages[0] == messages[1]


def test_a_column_kept_as_text_is_copied_in_text_form(source_database: Database, tmp_path: Path) -> None:
    source_database.execute(LATE)

    with read(source_database) as (chunk, formats):
        sink = open_sink(tmp_path / "target.duckdb", chunk.table, as_text=("public.t.v",))
        asked = load(sink, chunk, formats)
        last = rows_of(sink, "SELECT count(*) OVER (), v FROM public.t ORDER BY id DESC LIMIT 1")
        sink.close()

    assert asked == ["arrow"]
    assert last == [(5001, "294276-12-31 23:59:59")]


def test_a_chunk_that_was_refused_in_text_form_is_not_read_again(source_database: Database, tmp_path: Path) -> None:
    source_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v timestamp, w timestamp); INSERT INTO t VALUES (1, now(), '294276-12-31')"
    )

    with read(source_database) as (chunk, formats):
        sink = open_sink(tmp_path / "target.duckdb", chunk.table, as_text=("public.t.v",))
        loader, asked = sink.loader(), Asked(formats)
        with pytest.raises(DataError, match="column 'w'"):
            loader.load(chunk, asked)
        loader.close()
        sink.close()

    assert asked.names == ["arrow"]


def test_a_table_made_beforehand_with_other_types_is_copied_in_text_form(
    source_database: Database, tmp_path: Path
) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, v real); INSERT INTO t VALUES (1, 0.1)")

    with read(source_database) as (chunk, formats):
        file = tmp_path / "target.duckdb"
        with duckdb.connect(str(file)) as owner:
            owner.execute("CREATE SCHEMA IF NOT EXISTS public; CREATE TABLE public.t (id INTEGER, v VARCHAR)")
        kept = Pipeline("shop", EVERYTHING, on_existing="keep")
        sink = open_sink(file, chunk.table, pipeline=kept, as_text=("*.v",))
        asked = load(sink, chunk, formats)
        rows = rows_of(sink, "FROM public.t")
        sink.close()

    assert asked == ["arrow"]
    assert rows == [(1, "0.1")]


def test_rows_that_may_be_there_already_are_copied_in_text_form(source_database: Database, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, v real); INSERT INTO t VALUES (1, 0.1), (2, NULL)")

    with read(source_database) as (chunk, formats):
        sink = open_sink(tmp_path / "target.duckdb", chunk.table)
        load(sink, chunk, formats)
        asked = load(sink, replace(chunk, name="again", overlapping=True), formats)
        rows = rows_of(sink, "SELECT id, v::VARCHAR FROM public.t ORDER BY id")
        sink.close()

    assert asked == ["arrow"]
    assert rows == [(1, "0.1"), (2, None)]
