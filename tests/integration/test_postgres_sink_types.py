"""Values and shapes arrive byte-equal: native types, user types, odd equality, extreme tables, first copies."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from cdcrep.connector import Chunk, Copied, Pipeline
from cdcrep.errors import DivergedError, SetupError
from cdcrep.position import Position
from cdcrep.selection import Selection
from cdcrep.table import Column, ColumnType, Kind, Table, UserType
from cdcrep_connectors.postgres.sink import PostgresSink
from tests.integration.building_changes import Recorder, Row, columns_of, make_batch, make_table
from tests.servers.database import Database
from tests.servers.fix_postgres import oldest_and_newest_target

VALUES = {
    "numeric": ("NaN", "1.10", "0.000", "9" * 1000 + "." + "1" * 200),
    "numeric(12,2)": ("0.10",),
    "double precision": ("NaN", "-0", "Infinity", "5e-324", "0.1"),
    "real": ("-Infinity", "1e-45"),
    "bigint": ("-9223372036854775808",),
    "boolean": ("t", "f"),
    "character(5)": ("a    ",),
    "character varying(3)": ("", "\\\t\n"),
    '"char"': ("x",),
    "bytea": ("\\x", "\\x00ff5c"),
    "date": ("infinity", "4713-01-01 BC", "5874897-12-31"),
    "time without time zone": ("24:00:00",),
    "time with time zone": ("24:00:00-15:59",),
    "timestamp(3) without time zone": ("2024-02-29 12:00:00.123",),
    "timestamp with time zone": ("-infinity", "0044-03-15 12:00:00+00 BC"),
    "interval": ("-1 years -2 mons +3 days -04:05:06.7",),
    "json": ('{"a": 1,  "a":2}',),
    "jsonb": ('{"n": 123456789012345678901234567890.10}',),
    "xml": ("<a>\n</a>",),
    "point": ("(1,-0)",),
    "box[]": ("{(1,1),(0,0);(2,2),(1,1)}",),
    "text[]": ('{NULL,"NULL",""}', "[0:1]={a,b}", "{{a,b},{c,d}}"),
    "inet": ("::1/64",),
    "tsvector": ("'a':1A 'b'",),
    "int4range": ("empty", "[1,)"),
    "nummultirange": ("{[1.0,2.0),[3,4]}",),
    "bit varying(8)": ("", "101"),
    "money": ("-$1,234.50",),
    "pg_lsn": ("16/B374D848",),
    "uuid": ("00000000-0000-0000-0000-000000000001",),
    "regclass": ("pg_class",),
}
TYPES = make_table("types", "id integer" + "".join(f", c{i} {native}" for i, native in enumerate(VALUES)), "id")
ANYTHING = Table(TYPES.schema, "anything", TYPES.columns[1:], (), TYPES.dialect)


@pytest.fixture
def sink(target_database: Database) -> Iterator[PostgresSink]:
    options = PostgresSink.Options.model_validate({"url": target_database.url})
    sink = PostgresSink(Pipeline("shop", Selection(("*",))), options)
    sink.open()
    yield sink
    sink.close()


def follow(sink: PostgresSink, *tables: Table) -> None:
    sink.prepare(tables)
    sink.register({table.id: Copied(Position("0")) for table in tables}, Position("0"))


def type_rows() -> list[Row]:
    """Make rows in which every listed value stands once, and one of nulls."""
    longest = max(map(len, VALUES.values()))
    rows = [tuple(values[i] if i < len(values) else None for values in VALUES.values()) for i in range(longest)]
    return [*rows, (None,) * len(VALUES)]


def stored(database: Database, table: Table) -> list[Row]:
    columns = ", ".join(f'"{column.name}"::text' for column in table.columns)
    with database.connect(options="-c TimeZone=UTC -c lc_monetary=C") as connection:
        # bpchar loses its padding on the way to text, bool changes its form.
        query = columns.replace('"c6"::text', 'rpad("c6", 5)').replace('"c5"::text', 'left("c5"::text, 1)')
        return connection.execute(f'SELECT {query} FROM "{table.name}" ORDER BY 1'.encode()).fetchall()


@oldest_and_newest_target
@pytest.mark.parametrize("path", ["insert directly", "insert", "update", "load text", "load arrow"])
def test_values_of_all_types_arrive_as_they_were(target_database: Database, sink: PostgresSink, path: str) -> None:
    follow(sink, TYPES)
    rows = [(str(i), *row) for i, row in enumerate(type_rows())]
    loader = sink.loader()
    if path == "load text":
        cells = [["\\N" if v is None else escape(v) for v in row] for row in rows]
        text = "".join("\t".join(row) + "\n" for row in cells).encode()
        loader.load(Chunk(TYPES, "all"), {"pgcopy-text": lambda: [text]})
    elif path == "load arrow":
        batches = columns_of(rows, [column.name for column in TYPES.columns]).to_batches()
        loader.load(Chunk(TYPES, "all", overlapping=True), {"arrow": lambda: batches})
    else:
        inserts, updates = Recorder(TYPES), Recorder(TYPES)
        copies = 1 if path == "insert directly" else 20
        for number in range(copies * len(rows)):
            row = rows[number % len(rows)][1:]
            inserts.insert(str(number), *((None,) * len(row) if path == "update" else row))
            updates.update(str(number), *row)
        sink.apply(make_batch("warm", Recorder(TYPES).insert("-1", *rows[-1][1:]).delete("-1")))
        sink.apply(make_batch("1", inserts))
        if path == "update":
            sink.apply(make_batch("2", updates))
    loader.close()

    found = [row for row in stored(target_database, TYPES) if int(str(row[0])) < len(rows)]
    assert found == rows


def escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


@oldest_and_newest_target
def test_rows_of_types_without_equality_are_removed_exactly(target_database: Database, sink: PostgresSink) -> None:
    follow(sink, ANYTHING)
    rows = type_rows()
    twice = Recorder(ANYTHING)
    for row in [*rows, *rows, *rows]:
        twice.insert(*row)
    sink.apply(make_batch("1", twice))

    removal = Recorder(ANYTHING)
    for row in [*rows, *rows]:
        removal.delete(*row)
    sink.apply(make_batch("2", removal))

    assert sorted(map(repr, stored(target_database, ANYTHING))) == sorted(map(repr, rows))
    with pytest.raises(DivergedError, match="1 of 2"):
        sink.apply(make_batch("3", Recorder(ANYTHING).delete(*rows[0]).delete(*rows[0])))


MOOD = UserType("odd schema", "mood's", "enum", labels=("sad", "it's \\ok", "ha\nppy"))
SHORT = UserType("public", "short", "domain", base=ColumnType(Kind.TEXT, "character varying(10)"))
PAIR = UserType(
    "public",
    "pair",
    "composite",
    fields=(
        ("left", ColumnType(Kind.INT32, "integer")),
        ("Mood", ColumnType(Kind.VERBATIM, '"odd schema"."mood\'s"', user_type=MOOD)),
    ),
)
SPAN = UserType("public", "span", "range", base=ColumnType(Kind.TEXT, "text"))


def user_column(name: str, native: str, user_type: UserType, *, array: bool = False) -> Column:
    type_ = ColumnType(Kind.VERBATIM, native, user_type=user_type)
    return Column(name, ColumnType(Kind.ARRAY, f"{native}[]", element=type_) if array else type_)


OWN_TYPES = Table(
    "odd schema",
    'own "types".%s',
    (
        Column("id", ColumnType(Kind.INT32, "integer"), nullable=False),
        user_column("mood", '"odd schema"."mood\'s"', MOOD),
        user_column("moods", '"odd schema"."mood\'s"', MOOD, array=True),
        user_column("short", "short", SHORT),
        user_column("pair", "pair", PAIR),
        user_column("span", "span", SPAN),
    ),
    ("id",),
    "postgresql",
)


@oldest_and_newest_target
def test_user_types_are_created_and_their_values_kept(target_database: Database, sink: PostgresSink) -> None:
    public = Table(
        OWN_TYPES.schema,
        OWN_TYPES.name,
        tuple(
            Column(c.name, ColumnType(c.type.kind, f"public.{c.type.native}", user_type=c.type.user_type))
            if c.type.native in ("short", "pair", "span")
            else c
            for c in OWN_TYPES.columns
        ),
        OWN_TYPES.key,
        OWN_TYPES.dialect,
    )
    row = ("it's \\ok", '{sad,"ha\nppy"}', "ten chars!", '(7,"it\'s \\\\ok")', "[a,z)")
    follow(sink, public)

    sink.apply(make_batch("1", *[_rows(public, row, 0, 80)]))
    sink.apply(make_batch("2", *[_rows(public, row, 100, 2)]))

    found = target_database.execute(
        'SELECT mood::text, moods::text, short::text, pair::text, span::text FROM "odd schema"."own ""types"".%s"'
    )
    assert found == [row] * 82


def _rows(table: Table, row: Row, first: int, count: int) -> Recorder:
    recorder = Recorder(table)
    for i in range(first, first + count):
        recorder.insert(str(i), *row)
    return recorder


def test_ddl_in_a_type_name_is_refused(target_database: Database, sink: PostgresSink) -> None:
    for native in ("int, x int", "int default pg_sleep(9)", "int check (false)", "int); drop table x; --", 'a"b'):
        hostile = Table("public", "t", (Column("a", ColumnType(Kind.INT32, native)),), (), "postgresql")

        with pytest.raises(SetupError, match="not a PostgreSQL type name"):
            sink.prepare([hostile])

    assert target_database.execute("SELECT to_regclass('public.t')") == [(None,)]


def test_tables_of_1600_columns_and_of_none_work(target_database: Database, sink: PostgresSink) -> None:
    wide = make_table("wide", "id integer" + "".join(f", c{i} integer" for i in range(1599)), "id")
    empty = make_table("empty", "")
    follow(sink, wide, empty)
    rows, changes = Recorder(wide), Recorder(wide)
    for i in range(80):
        rows.insert(str(i), *["1"] * 100, *[None] * 1499)
        changes.update(str(i), *["2"] * 100, *[None] * 1499)

    sink.apply(make_batch("1", rows, Recorder(empty).insert().insert().insert()))
    sink.apply(make_batch("2", changes, Recorder(empty).delete()))
    sink.apply(make_batch("3", Recorder(wide).insert("100", *[None] * 1599), Recorder(empty).insert()))

    assert target_database.execute("SELECT count(*), sum(c99) FROM wide") == [(81, 160)]
    assert target_database.execute("SELECT count(*) FROM empty") == [(3,)]


@oldest_and_newest_target
@pytest.mark.parametrize("unique", [False, True], ids=["in order", "rewritten"])
def test_a_table_of_1600_columns_keeps_unsent_values_of_rows_that_move(
    target_database: Database, sink: PostgresSink, unique: bool
) -> None:
    wide = make_table("wide", "id integer, a integer, big text" + "".join(f", c{i} integer" for i in range(1597)), "id")
    follow(sink, wide)
    if unique:
        target_database.execute("CREATE UNIQUE INDEX ON wide (a)")
    nothing = (None,) * 1597
    rows, changes = Recorder(wide), Recorder(wide)
    for i in range(100):
        rows.insert(str(i), str(i), f"big {i}", *nothing)
    sink.apply(make_batch("1", rows))

    # In place; to a free key; a chain; a swap of unique values; and all of it with and without the large value.
    for i in range(0, 40):
        changes.update(str(i), str(i + 1000), None, *nothing, unchanged=[2] if i % 2 else [2, 5])
    changes.update("50", "50", None, *nothing, unchanged=[2]).update(
        "500", "50", None, *nothing, old=("50",), unchanged=[2]
    )
    for i in (62, 61, 60):
        changes.update(str(i + 1) if i < 62 else "600", str(i), None, *nothing, old=(str(i),), unchanged=[2])
    changes.update("70", "-1", None, *nothing, unchanged=[2])
    changes.update("71", "70", "known", *nothing)
    changes.update("70", "71", None, *nothing, unchanged=[2])
    changes.delete("80").insert("200", "80", "new", *nothing)
    sink.apply(make_batch("2", changes))

    expected = {i: (i + 1000 if i < 40 else i, f"big {i}") for i in range(100) if i not in (50, 60, 61, 62, 80)}
    expected |= {500: (50, "big 50"), 61: (60, "big 60"), 62: (61, "big 61"), 600: (62, "big 62")}
    expected |= {70: (71, "big 70"), 71: (70, "known"), 200: (80, "new")}
    stored_rows = target_database.execute("SELECT id, a, big FROM wide")
    assert {id_: tuple(values) for id_, *values in stored_rows} == expected
    with pytest.raises(DivergedError, match="missing"):
        sink.apply(make_batch("3", Recorder(wide).update("9999", "1", None, *nothing, unchanged=[2])))


def test_a_value_of_50_megabytes_arrives(target_database: Database, sink: PostgresSink) -> None:
    table = make_table("large", "id integer, big text", "id")
    follow(sink, table)
    big = "\\large\n" * (50 << 17)

    sink.apply(make_batch("1", Recorder(table).insert("1", big)))
    sink.apply(make_batch("2", Recorder(table).update("1", big + "!")))

    assert target_database.execute("SELECT md5(big) = md5(repeat(E'\\\\large\\n', 50 << 17) || '!') FROM large") == [
        (True,)
    ]


@oldest_and_newest_target
def test_binary_chunks_pass_through_where_types_are_the_same(target_database: Database, sink: PostgresSink) -> None:
    same = make_table("same", "id integer, n numeric(12,2), t timestamp with time zone", "id")
    other = make_table("other", "id integer, n numeric(12,2)", "id")
    target_database.execute("CREATE TABLE other (id int PRIMARY KEY, n double precision)")
    follow(sink, same, other)
    with psycopg.connect(target_database.dsn) as connection:
        query = "SELECT i, i / 4.0::numeric(12,2), '2024-01-01Z'::timestamptz FROM generate_series(1, 9) i"
        with connection.cursor().copy(f"COPY ({query}) TO STDOUT (FORMAT binary)".encode()) as copy:
            binary = [bytes(piece) for piece in copy]
    loader = sink.loader()

    rows, _ = loader.load(Chunk(same, "1"), {"pgcopy-binary": lambda: binary, "pgcopy-text": lambda: [b"never"]})
    loader.load(Chunk(same, "2", overlapping=True), {"pgcopy-binary": lambda: binary})
    loader.load(Chunk(other, "1"), {"pgcopy-binary": lambda: binary, "pgcopy-text": lambda: [b"1\t0.50\n"]})
    loader.close()

    assert rows == 9
    assert target_database.execute("SELECT count(*), sum(n)::text FROM same") == [(9, "11.25")]
    assert target_database.execute("SELECT id, n FROM other") == [(1, 0.5)]


def test_a_new_label_and_a_new_column_of_a_new_type_grow_in_the_target(
    target_database: Database, sink: PostgresSink
) -> None:
    table = make_table("items", "id integer", "id")
    follow(sink, table)
    mood = UserType("public", "mood", "enum", labels=("sad",))
    grown = Table("public", "items", (*table.columns, user_column("mood", "public.mood", mood)), ("id",), "postgresql")

    sink.apply(make_batch("1", Recorder(table).insert("1"), Recorder(grown).insert("2", "sad")))

    assert target_database.execute("SELECT id, mood::text FROM items ORDER BY 1") == [(1, None), (2, "sad")]
