"""Every built-in type with its extremes: all formats of a snapshot carry what the type's output function writes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest

from cdcrep.table import Kind, Table
from cdcrep_connectors.postgres.catalog import Catalog
from cdcrep_connectors.postgres.connection import connect
from cdcrep_connectors.postgres.relation import Relation, RelationColumn
from cdcrep_connectors.postgres.snapshot import PostgresSnapshot
from cdcrep_connectors.postgres.types import BUILTIN
from tests.integration.postgres_source import arrow_rows, source
from tests.servers.database import Database
from tests.servers.fix_postgres import every_major

ANY_TEXT = ["", "a", "NULL", "\\N", "tab\there", "new\nline", "back\\slash", 'quo"te', "it's", "😀é\u202e", " x "]

VALUES: Mapping[str, Sequence[str]] = {
    "boolean": ["t", "f"],
    "smallint": ["-32768", "32767", "0"],
    "integer": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "oid": ["0", "4294967295"],
    "real": ["NaN", "Infinity", "-Infinity", "-0", "1e-45", "3.4028235e38", "0.1", "16777217"],
    "double precision": ["NaN", "Infinity", "-Infinity", "-0", "5e-324", "1.7976931348623157e308", "0.1", "1e23"],
    "numeric": ["NaN", "Infinity", "-Infinity", "0", "0.000", "-0.0001", "10000", "1e1000", "1e-1000", "9" * 1000],
    "numeric(12,2)": ["NaN", "9999999999.99", "-0.01", "0", "1.5"],
    "numeric(1000,500)": ["1e499", "-1e-500"],
    "text": ANY_TEXT,
    "varchar": ANY_TEXT,
    "varchar(3)": ["", "abc", "é😀x"],
    "char(5)": ["", "a", "abcde", "é"],
    "bpchar": ["", "a  "],
    "name": ["", "a" * 63],
    '"char"': ["", "a", "~"],
    "bytea": ["", "\\x", "\\x00", "\\x00ff5c", "\\x2727"],
    "date": ["infinity", "-infinity", "4713-01-01 BC", "0001-01-01", "9999-12-31", "10000-01-01", "5874897-12-31"],
    "time": ["00:00", "24:00:00", "23:59:59.999999", "12:30:00.5"],
    "time(3)": ["12:30:00.123", "24:00"],
    "timetz": ["00:00+15:59", "24:00:00-15:59", "12:00:00.5+05:30"],
    "timestamp": [
        *("infinity", "-infinity", "4713-01-01 BC", "294276-12-31 23:59:59.999999"),
        *("2000-01-01", "0001-01-01", "9999-12-31 23:59:59.999999", "1969-12-31 23:59:59.999999"),
    ],
    "timestamp(0)": ["2024-02-29 12:00:01"],
    "timestamptz": ["infinity", "-infinity", "4713-01-01 BC", "294276-12-31 23:59:59+00", "2024-03-31 02:30+02"],
    "interval": ["1 mon", "-1 year 3 days -04:05:06.7", "178000000 years", "00:00:00.000001", "2147483647 days"],
    "interval day to second(2)": ["1 day 02:03:04.56"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
    "json": ['{"b":1,  "a":1.50, "a":2}', "null", '"\\u0000"', "[]", "1e400"],
    "jsonb": ['{"b": 1, "a": 1.50}', "null", "[]", "12345678901234567890.12345678901234567890", '"é\\"\\\\"'],
    "money": ["-92233720368547758.08", "92233720368547758.07", "0"],
    "bit": ["0"],
    "bit(9)": ["101010101"],
    "varbit": ["", "1", "10101010101"],
    "inet": ["1.2.3.4", "1.2.3.4/24", "::1", "fe80::1/64"],
    "cidr": ["10.0.0.0/8", "::/0"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "xml": ["<a>é</a>", "text", ""],
    "xid": ["0", "4294967295"],
    "xid8": ["18446744073709551615"],
    "cid": ["5"],
    "tid": ["(4294967295,65535)"],
    "pg_lsn": ["0/0", "FFFFFFFF/FFFFFFFF"],
    "txid_snapshot": ["10:20:10,14,15"],
    "pg_snapshot": ["10:20:10,14,15"],
    "point": ["(1,-0)", "(NaN,Infinity)", "(0.1,1e300)"],
    "line": ["{1,2,3}"],
    "lseg": ["[(1,2),(3,4)]"],
    "box": ["(3,4),(1,2)"],
    "path": ["[(1,2),(3,4)]", "((1,2),(3,4))"],
    "polygon": ["((1,2),(3,4),(5,6))"],
    "circle": ["<(1,2),3>"],
    "tsvector": ["'a':1A 'b c':2", ""],
    "tsquery": ["'a' & !'b' | 'c':*", ""],
    "jsonpath": ['$."a"[*]?(@ > 1)'],
    "refcursor": ["c"],
    "regclass": ["pg_catalog.pg_class", "-", "public.holder"],
    "regtype": ["integer", "public.mood"],
    "regproc": ["pg_catalog.now"],
    "int2vector": ["1 2", ""],
    "oidvector": ["1 4294967295"],
    "int4range": ["[1,10)", "empty", "(,)"],
    "numrange": ["(1.50,2]", "[,5)"],
    "tstzrange": ['["2000-01-01 00:00:00+00",infinity)'],
    "daterange": ["[2000-01-01,infinity]"],
    "int8multirange": ["{[1,2),[5,7)}", "{}"],
    "integer[]": ["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[0:1]={1,2}", "[-1:0][2:2]={{1},{2}}"],
    "text[]": ['{"NULL",NULL,"","a,b","{","\\"","\\\\"," x "}'],
    "numeric(5,1)[]": ["{1.5,NaN}"],
    "timestamptz[]": ["{infinity,2024-01-01 00:00:00+00}"],
    "box[]": ["{(1,1),(0,0);(2,2),(1,1)}"],
    "bytea[]": ['{"\\\\x00ff"}'],
    "boolean[]": ["{t,f,NULL}"],
    "public.mood": ["sad", 'so, "so"'],
    "public.mood[]": ['{sad,"so, \\"so\\"",NULL}'],
    "public.price": ["1.50"],
    "public.price[]": ["{1.50,NULL}"],
    "public.label": ["x"],
    "public.nested": ["{1,2}"],
    "public.pair": ['(1,"a b",{sad})', "(,,)"],
    "public.pair[]": ['{"(1,x,)",NULL}'],
    "public.span": ["[1.5,2.5)"],
}

USER_TYPES = """
CREATE TABLE holder (a int PRIMARY KEY);
CREATE TYPE mood AS ENUM ('sad', 'so, "so"');
CREATE DOMAIN price AS numeric(12,2);
CREATE DOMAIN label AS text CHECK (length(VALUE) < 5);
CREATE DOMAIN nested AS int[];
CREATE TYPE pair AS (x int, y text, z mood[]);
CREATE TYPE span AS RANGE (subtype = float8);
"""

HOSTILE_SETTINGS = {
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "quote_all_identifiers": "on",
    "xmlbinary": "hex",
}


def create(database: Database, values: Mapping[str, Sequence[str]]) -> None:
    for setting, value in HOSTILE_SETTINGS.items():
        database.execute(f"ALTER DATABASE {database.name} SET {setting} = '{value}'")
    database.execute(USER_TYPES)
    with database.connect() as connection:
        for number, (type_, texts) in enumerate(values.items()):
            connection.execute(f"CREATE TABLE t{number} (id int PRIMARY KEY, v {type_})".encode())
            statement = f"INSERT INTO t{number} VALUES (%s, CAST(%s AS {type_}))"
            connection.cursor().executemany(statement.encode(), list(enumerate((None, *texts))))


def text_rows(snapshot: PostgresSnapshot, table: Table) -> list[str | None]:
    """Read column v as text, by id."""
    (chunk,) = snapshot.chunks(table, None)
    lines = b"".join(snapshot.read(chunk)["pgcopy-text"]()).decode().split("\n")[:-1]
    return [unescaped(value) for _, value in sorted((int(i), v) for i, v in (line.split("\t") for line in lines))]


def unescaped(value: str) -> str | None:
    if value == "\\N":
        return None
    escapes = {"t": "\t", "n": "\n", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "\\": "\\"}
    parts = value.split("\\\\")
    return "\\".join(
        "".join(escapes[p[0]] + p[1:] if i else p for i, p in enumerate(part.split("\\"))) for part in parts
    )


def arrow_texts(snapshot: PostgresSnapshot, table: Table) -> list[str | None]:
    """Read column v as Arrow, by id."""
    rows = arrow_rows(snapshot, table).to_pylist()
    return [row["v"] for row in sorted(rows, key=lambda row: int(row["id"]))]


@pytest.mark.parametrize("postgres_major", [14, 18], indirect=True)
def test_arrow_carries_what_the_output_function_writes(source_database: Database) -> None:
    create(source_database, VALUES)

    different = []
    with source(source_database) as opened:
        opened.set_up()
        snapshot = opened.start()
        shapes = {table.name: table for table in opened.tables()}
        for number, type_ in enumerate(VALUES):
            table = shapes[f"t{number}"]
            expected = text_rows(snapshot, table)
            found = arrow_texts(snapshot, table)
            if found != expected:
                different.append((type_, found, expected))

    assert different == []


@pytest.mark.parametrize("postgres_major", [14, 18], indirect=True)
def test_binary_carries_what_the_output_function_writes(source_database: Database) -> None:
    create(source_database, VALUES)

    different, tried = [], 0
    counts: list[int] = []
    with source(source_database) as opened, source_database.connect() as loader:
        opened.set_up()
        snapshot = opened.start()
        for table in opened.tables():
            (chunk,) = snapshot.chunks(table, None)
            streams = snapshot.read(chunk)
            if table.name == "holder" or "pgcopy-binary" not in streams:
                continue
            tried += 1
            loader.execute(f"CREATE TEMPORARY TABLE copy (LIKE public.{table.name})".encode())
            with loader.cursor().copy("COPY copy FROM STDIN (FORMAT binary)") as copy:
                for piece in streams["pgcopy-binary"]():
                    copy.write(piece)
            both = "SELECT id, v::text FROM copy {} SELECT id, v::text FROM public." + table.name
            for operation in ("EXCEPT ALL", "INTERSECT ALL"):
                found = loader.execute(both.format(operation).encode()).fetchall()
                counts.append(len(found))
            ((total,),) = loader.execute(f"SELECT count(*) FROM public.{table.name}".encode()).fetchall()
            if counts[-2:] != [0, total]:
                different.append(table.name)
            loader.execute("DROP TABLE copy")

    assert different == []
    assert tried > 30


def test_random_numbers_are_read_digit_by_digit(source_database: Database) -> None:
    chance = random.Random(random.getrandbits(32))
    numbers = [
        f"{chance.choice(['', '-'])}{chance.getrandbits(chance.randrange(1, 400))}e{chance.randrange(-120, 120)}"
        for _ in range(3000)
    ]
    create(source_database, {"numeric": numbers})

    with source(source_database, "public.t0") as opened:
        opened.set_up()
        snapshot = opened.start()
        (table,) = opened.tables()

        assert arrow_texts(snapshot, table) == text_rows(snapshot, table)


def test_text_that_looks_like_the_copy_s_own_signs_is_read_as_it_is(source_database: Database) -> None:
    signs = ["\x01", "\x02", "\n", "\r", "\\", "N", "d", ",", '"', "é", "\\N", "\\.", "cdcr\x02"]
    chance = random.Random(random.getrandbits(32))
    texts = ["".join(chance.choices(signs, k=chance.randrange(8))) for _ in range(3000)]
    # A row whose length reads like the beginning of another row, and one that fills more than a piece.
    texts += ["x" * 0x0A6400, "y" * (5 << 20), "\n\x01" * (3 << 20)]
    create(source_database, {"text": texts})

    with source(source_database, "public.t0") as opened:
        opened.set_up()
        snapshot = opened.start()
        (table,) = opened.tables()

        assert arrow_texts(snapshot, table) == [None, *texts]


def test_a_column_alone_is_null_or_empty_as_it_was(source_database: Database) -> None:
    source_database.execute(
        "CREATE TABLE t0 (v text); ALTER TABLE t0 REPLICA IDENTITY FULL; "
        "INSERT INTO t0 VALUES (NULL), (''), ('\\N'), ('\\.'), (E'\\n')"
    )

    with source(source_database, "public.t0") as opened:
        opened.set_up()
        snapshot = opened.start()
        (table,) = opened.tables()

        assert arrow_rows(snapshot, table)["v"].to_pylist() == [None, "", "\\N", "\\.", "\n"]


@every_major
def test_every_type_of_the_server_is_mapped(source_database: Database) -> None:
    found = source_database.execute(
        "SELECT typname::text FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace "
        "AND typtype IN ('b', 'r', 'm') AND (typcategory <> 'A' OR typname IN ('int2vector', 'oidvector'))"
    )
    internal = {"gtsvector", "pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_brin_bloom_summary"}
    internal |= {"pg_brin_minmax_multi_summary", "pg_mcv_list", "cstring", "pg_ddl_command"}

    assert {row[0] for row in found} - internal - set(BUILTIN) == set()


@every_major
def test_the_stream_gives_tables_the_shape_of_the_catalogue(source_database: Database) -> None:
    source_database.execute(USER_TYPES)
    columns = ", ".join(f"c{i} {type_}" for i, type_ in enumerate(VALUES))
    source_database.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, gone int, {columns}, n int NOT NULL); ALTER TABLE t DROP gone"
    )
    attributes = source_database.execute(
        "SELECT attname::text, attname = 'id', atttypid, atttypmod FROM pg_attribute "
        "WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    )
    ((oid,),) = source_database.execute("SELECT 't'::regclass::oid")
    message = Relation(int(oid), "public", "t", "d", tuple(RelationColumn(*attribute) for attribute in attributes))

    with source(source_database, "public.t") as opened:
        (table,) = opened.tables()
        with connect(opened._options, application_name="test") as connection:
            assert Catalog(connection).table_of(message) == table
    assert table.key == ("id",)


def test_full_replica_identity_is_found_by_the_primary_key(source_database: Database) -> None:
    source_database.execute("CREATE TABLE t (a int, id int PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY FULL")
    ((oid,),) = source_database.execute("SELECT 't'::regclass::oid")
    sent = (RelationColumn("a", True, 23, -1), RelationColumn("id", True, 23, -1))

    with source(source_database, "public.t") as opened:
        (table,) = opened.tables()
        with connect(opened._options, application_name="test") as connection:
            shape = Catalog(connection).table_of(Relation(int(oid), "public", "t", "f", sent))

    assert shape == table
    assert shape.key == ("id",)


def test_a_shape_older_than_the_catalogue_is_taken_from_the_message(source_database: Database) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, b text, c int)")
    ((oid,),) = source_database.execute("SELECT 't'::regclass::oid")
    source_database.execute("ALTER TABLE t DROP c; ALTER TABLE t RENAME TO renamed")
    sent = (RelationColumn("id", True, 23, -1), RelationColumn("b", False, 25, -1), RelationColumn("c", False, 23, -1))

    with source(source_database, "*") as opened, connect(opened._options, application_name="test") as connection:
        shape = Catalog(connection).table_of(Relation(int(oid), "public", "t", "d", sent))

    assert str(shape.id) == "public.t"
    assert [(column.name, column.type.kind) for column in shape.columns] == [
        ("id", Kind.INT32),
        ("b", Kind.TEXT),
        ("c", Kind.INT32),
    ]
