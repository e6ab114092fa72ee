"""Every kind of PostgreSQL value reaches DuckDB as the same value, by the first copy and by the stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pytest

from cdcrep.changes import INSERT, Changes
from cdcrep.connector import Chunk
from cdcrep.errors import DataError
from cdcrep.table import Table
from cdcrep_connectors.duckdb import apply
from cdcrep_connectors.duckdb import rows as rows_module
from cdcrep_connectors.duckdb.sink import DuckDBSink
from tests.integration.duckdb_target import batch, load, open_sink, rows_of, text_rows
from tests.integration.postgres_source import arrow_rows, source
from tests.servers.database import Database
from tests.servers.fix_postgres import DEFAULT_MAJOR

SESSION: Final = (
    "-c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC -c bytea_output=hex -c extra_float_digits=3"
)

SAME: Final = None
"""DuckDB's text of the value is PostgreSQL's."""

LONGEST: Final = "2562047788:00:54.775807" if DEFAULT_MAJOR >= 15 else "2147483647:59:59.999999"
"""The largest time of an interval that is written in one literal: before 15 hours have 32 bits."""

VALUES: Final[dict[str, dict[str, str | None]]] = {
    "boolean": {"t": "true", "f": "false"},
    "smallint": {"-32768": SAME, "32767": SAME},
    "integer": {"-2147483648": SAME, "2147483647": SAME},
    "bigint": {"-9223372036854775808": SAME, "9223372036854775807": SAME},
    "oid": {"0": SAME, "4294967295": SAME},
    "numeric(12,2)": {"-9999999999.99": SAME, "0.10": SAME, "0": "0.00"},
    "numeric(38,0)": {"9" * 38: SAME, "-" + "9" * 38: SAME},
    "numeric(38,38)": {"0." + "1234567890" * 3 + "12345678": "." + "1234567890" * 3 + "12345678"},
    "numeric": {"1.10": SAME, "NaN": SAME, "Infinity": SAME, "-0.000000000000000000001": SAME, "7" * 1000: SAME},
    "numeric(50,3)": {"-12345678901234567890123456789012345678901234.500": SAME},
    "real": {"0.1": SAME, "-0": "-0.0", "NaN": "nan", "Infinity": "inf", "-Infinity": "-inf", "1e-45": SAME},
    "double precision": {
        "0.1": SAME,
        "-0": "-0.0",
        "NaN": "nan",
        "-Infinity": "-inf",
        "5e-324": SAME,
        "1.7976931348623157e+308": SAME,
        "0.30000000000000004": SAME,
    },
    "text": {"": SAME, "NULL": SAME, "\\N": SAME, 'a "quoted", {braced} \\ back\nline\ttab': SAME, "é ☃ 🎉": SAME},
    "varchar(10)": {"  padded ": SAME},
    "char(5)": {"ab": "ab   "},
    "name": {"a_name": SAME},
    "bytea": {"\\x": "", "\\x00ff5c27": "\\x00\\xFF\\x5C\\x27"},
    "date": {
        "2024-02-29": SAME,
        "infinity": SAME,
        "-infinity": SAME,
        "0044-03-15 BC": "0044-03-15 (BC)",
        "4713-01-01 BC": "4713-01-01 (BC)",
        "5874897-12-31": SAME,
    },
    "time": {"00:00:00": SAME, "24:00:00": SAME, "23:59:59.999999": SAME},
    "timetz": {"24:00:00+02": SAME, "12:34:56.1-15:59:59": SAME},
    "timestamp": {
        "2024-01-01 12:34:56.123456": SAME,
        "infinity": SAME,
        "-infinity": SAME,
        "0044-03-15 12:00:00.5 BC": "0044-03-15 (BC) 12:00:00.5",
        "294246-12-31 23:59:59.999999": SAME,
        "1500-01-01 00:00:00": SAME,
    },
    "timestamptz": {
        "2024-01-01 12:34:56.123456+00": SAME,
        "2024-01-01 12:00:00+05:30": "2024-01-01 06:30:00+00",
        "infinity": SAME,
        "-infinity": SAME,
        "0044-03-15 12:00:00.5+00 BC": "0044-03-15 (BC) 12:00:00.5+00",
    },
    "interval": {
        "0": "00:00:00",
        "1 year 2 mons 3 days 04:05:06.789": "1 year 2 months 3 days 04:05:06.789",
        "-1 years -2 mons +3 days -04:05:06.000001": "-1 year -2 months 3 days -04:05:06.000001",
        "-1 days +02:03:00": "-1 day 02:03:00",
        "1 mon -1 days": "1 month -1 day",
        "2147483647 days": SAME,
        "-178956970 years -8 mons": "-178956970 years -8 months",
        LONGEST: SAME,
    },
    "uuid": {"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
    "json": {'{"b":  1.00, "a": 1e400, "a": null}': SAME, '"\\u0000"': SAME},
    "jsonb": {'{"a": 12345678901234567890.10, "b": [true, null]}': SAME},
    "xml": {"<a>1</a>": SAME},
    "money": {"-1.5": "-$1.50"},
    "bit(3)": {"101": SAME},
    "varbit": {"10101": SAME},
    "inet": {"::1/64": SAME, "10.0.0.1": SAME},
    "macaddr8": {"08:00:2b:01:02:03:04:05": SAME},
    "pg_lsn": {"16/B374D848": SAME},
    "point": {"(1,-0)": SAME},
    "tsvector": {"'a':1 'b c':2": SAME},
    "int4range": {"[1,5)": SAME, "empty": SAME},
    "int4multirange": {"{[1,3),[5,9)}": SAME},
    "int4[]": {"{}": "[]", "{1,NULL,-3}": "[1, NULL, -3]"},
    "numeric(5,2)[]": {"{1.50,-2}": "[1.50, -2.00]"},
    "float8[]": {"{NaN,-0,1.5}": "[nan, -0.0, 1.5]"},
    "bool[]": {"{t,f,NULL}": "[true, false, NULL]"},
    "text[]": {
        '{"",NULL,"NULL",plain}': "['', NULL, 'NULL', plain]",
        '{"a,b","c\\"d","e\\\\f","{g}"," h "}': "['a,b', 'c\"d', 'e\\\\f', '{g}', ' h ']",
        '{"two\nlines",x}': "[two\nlines, x]",
    },
    "timestamp[]": {'{"2024-01-01 00:00:00",infinity,NULL}': "['2024-01-01 00:00:00', infinity, NULL]"},
    "date[]": {'{"0044-03-15 BC",2024-01-01}': "['0044-03-15 (BC)', 2024-01-01]"},
    "bytea[]": {'{"\\\\x00ff",NULL}': "['\\\\x00\\\\xFF', NULL]"},
    "interval[]": {'{"1 mon -1 days"}': "[1 month -1 day]"},
    "uuid[]": {"{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}": "[a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11]"},
    "inet[]": {"{10.0.0.1,NULL}": SAME},
    "box[]": {"{(1,1),(0,0);(2,2),(0,0)}": SAME},
}
"""Type -> literal -> the text that DuckDB gives the value."""

REFUSED: Final = {
    "numeric(12,2)": "NaN",
    "timestamp": "294276-12-31 23:59:59.999999",
    "timestamptz": "294276-12-31 23:59:59.999999+00",
    "int4[]": "{{1,2},{3,4}}",
    "text[]": "[0:1]={a,b}",
    "json": '"\\ud800"',
    **({"interval": "infinity"} if DEFAULT_MAJOR >= 17 else {}),
}
"""Values that DuckDB's type does not have."""


Carried = dict[str, tuple[Table, pa.Table, pa.Table]]
"""Type -> its table, and its rows as the first copy and as the stream carry them; the last one is NULL."""


def carried(database: Database, values: Mapping[str, Iterable[str]]) -> Carried:
    """Create a table for each type and read it in both ways."""
    names = {f"v{i:02}": type_ for i, type_ in enumerate(values)}
    with database.connect(options=SESSION) as connection:
        for name, type_ in names.items():
            connection.execute(f"CREATE TABLE {name} (id serial PRIMARY KEY, value {type_})".encode())
            for literal in [*values[type_], None]:
                connection.execute(f"INSERT INTO {name} (value) VALUES (%s::text::{type_})".encode(), [literal])
    with source(database) as opened, database.connect(options=SESSION) as connection:
        opened.set_up()
        snapshot = opened.start()
        found = {}
        for table in opened.tables():
            # Not a cast to text, which strips the padding of char(n) and completes inet.
            written = "CASE WHEN value IS NOT NULL THEN format('%s', value) END"
            streamed = connection.execute(
                f"SELECT id::text, {written} FROM {table.name} ORDER BY id".encode()
            ).fetchall()
            found[names[table.name]] = (table, arrow_rows(snapshot, table), text_rows(table, streamed))
        snapshot.close()
        opened.tear_down()
    return found


def copy(sink: DuckDBSink, number: int, table: Table, rows: pa.Table) -> None:
    load(sink, Chunk(table, f"all {number}"), *rows.to_batches())


def stream(sink: DuckDBSink, number: int, table: Table, rows: pa.Table) -> None:
    operations = np.full(len(rows), INSERT, np.uint8)
    sink.apply(batch(str(number), Changes(table, operations, rows)))


def stream_each(sink: DuckDBSink, number: int, table: Table, rows: pa.Table) -> None:
    for row in range(len(rows)):
        stream(sink, 100 * number + row, table, rows.slice(row, 1))


def stream_many(sink: DuckDBSink, number: int, table: Table, rows: pa.Table) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("FEW_ROWS", "FEW_KEYS"):
            patch.setattr(apply, limit, 0)
        patch.setattr(rows_module, "LISTED_ROWS", 0)
        stream(sink, number, table, rows)


Write = Callable[[DuckDBSink, int, Table, pa.Table], None]

all_ways = pytest.mark.parametrize(
    ("write", "rows"),
    [(copy, 1), (stream_each, 2), (stream, 2), (stream_many, 2)],
    ids=["copied", "streamed as parameters", "streamed as a list", "streamed as an Arrow table"],
)


@all_ways
def test_every_value_stays_the_same(source_database: Database, tmp_path: Path, write: Write, rows: int) -> None:
    tables = carried(source_database, VALUES)
    sink = open_sink(tmp_path / "target.duckdb", *(table for table, _, _ in tables.values()))
    found = {}

    for number, (type_, parts) in enumerate(tables.items(), 1):
        write(sink, number, parts[0], parts[rows])
        held = rows_of(sink, f"SELECT value::VARCHAR FROM public.{parts[0].name} ORDER BY id")
        found[type_] = [text for (text,) in held]
    sink.close()

    assert found == {
        type_: [*(literal if text is SAME else text for literal, text in values.items()), None]
        for type_, values in VALUES.items()
    }


@all_ways
def test_a_value_that_duckdb_does_not_have_is_refused_by_name(
    source_database: Database, tmp_path: Path, write: Write, rows: int
) -> None:
    tables = carried(source_database, {type_: [value] for type_, value in REFUSED.items()})
    sink = open_sink(tmp_path / "target.duckdb", *(table for table, _, _ in tables.values()))

    for number, (type_, parts) in enumerate(tables.items(), 1):
        name = f"public.{parts[0].name}"
        with pytest.raises(DataError, match=f"{name}: column 'value'") as refused:
            write(sink, number, parts[0], parts[rows])
        assert REFUSED[type_] not in str(refused.value)
        assert f'as_text = ["{name}.value"]' in str(refused.value.hint)
        assert rows_of(sink, f"FROM {name}") == []
    sink.close()


@all_ways
def test_a_column_kept_as_text_holds_every_value(
    source_database: Database, tmp_path: Path, write: Write, rows: int
) -> None:
    tables = carried(source_database, {type_: [value] for type_, value in REFUSED.items()})
    file = tmp_path / "target.duckdb"
    sink = open_sink(file, *(table for table, _, _ in tables.values()), as_text=("public.*.val*",))

    for number, (type_, parts) in enumerate(tables.items(), 1):
        write(sink, number, parts[0], parts[rows])
        assert rows_of(sink, f"SELECT value FROM public.{parts[0].name} ORDER BY id") == [(REFUSED[type_],), (None,)]
    sink.close()
