"""Every supported version of the source, every kind of table and change, copied and streamed into every target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg import sql

from tests.integration.end_to_end import PLACES, Place, Replicated
from tests.servers.database import Database, RunningServer
from tests.servers.fix_postgres import MAJORS, every_major

LONGEST: Final = "n" * 63
HOSTILE: Final = (
    'quo"te',
    "apos'trophe",
    "dot.ted",
    "per%cent %s",
    "emoji 😀",
    LONGEST,
    "é" * 31 + "x",
    "new\nline",
    "back\\slash",
    "Select",
    " ",
    "{brace}",
    "semi;colon --",
)

SCHEMA: Final = """
CREATE TABLE plain (id int PRIMARY KEY, n int, note text);
CREATE TABLE stored (gone int, id int PRIMARY KEY, dropped text, n int, big text, other text);
ALTER TABLE stored DROP gone, DROP dropped;
ALTER TABLE stored ALTER big SET STORAGE EXTERNAL, ALTER other SET STORAGE EXTERNAL;
CREATE TABLE stored_full (LIKE stored INCLUDING ALL);
ALTER TABLE stored_full REPLICA IDENTITY FULL;
CREATE TABLE coded (n int, code text NOT NULL, big text, kind int NOT NULL, id int PRIMARY KEY);
CREATE UNIQUE INDEX coded_index ON coded (kind, code);
ALTER TABLE coded ALTER big SET STORAGE EXTERNAL, REPLICA IDENTITY USING INDEX coded_index;
CREATE TABLE bag (x int, gone int, y text);
ALTER TABLE bag DROP gone;
ALTER TABLE bag REPLICA IDENTITY FULL;
CREATE TABLE computed (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED, z text);
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
CREATE TABLE nothing ();
ALTER TABLE nothing REPLICA IDENTITY FULL;
CREATE TABLE parted (id int, area text, n int, big text, PRIMARY KEY (id, area)) PARTITION BY LIST (area);
CREATE TABLE parted_north PARTITION OF parted FOR VALUES IN ('north');
CREATE TABLE parted_south (big text, gone int, n int, area text NOT NULL, id int NOT NULL);
ALTER TABLE parted_south DROP gone;
ALTER TABLE parted ATTACH PARTITION parted_south FOR VALUES IN ('south');
CREATE TABLE parted_rest PARTITION OF parted DEFAULT PARTITION BY RANGE (id);
CREATE TABLE parted_rest_low PARTITION OF parted_rest FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_rest_high PARTITION OF parted_rest FOR VALUES FROM (100) TO (1000);
CREATE TABLE parted_twice (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
CREATE TABLE parted_twice_low PARTITION OF parted_twice FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_twice_high PARTITION OF parted_twice FOR VALUES FROM (100) TO (1000);
"""

BEFORE: Final = """
INSERT INTO plain SELECT i, i % 7, 'copied ' || i FROM generate_series(1, 300) i;
INSERT INTO stored SELECT i, i, repeat(chr(96 + i), 3000), repeat('o', 2500) FROM generate_series(1, 9) i;
INSERT INTO stored_full SELECT * FROM stored;
INSERT INTO coded SELECT i, 'code ' || i, repeat('c', 3000), i % 2, i FROM generate_series(1, 9) i;
INSERT INTO bag SELECT i % 3, CASE WHEN i % 2 = 0 THEN 'same' END FROM generate_series(1, 30) i;
INSERT INTO computed (n, z) SELECT i, 'z' FROM generate_series(1, 9) i;
INSERT INTO parent SELECT generate_series(1, 9);
INSERT INTO child SELECT i, i FROM generate_series(1, 9) i;
INSERT INTO nothing DEFAULT VALUES;
INSERT INTO nothing DEFAULT VALUES;
INSERT INTO parted SELECT i, (ARRAY['north', 'south', 'east'])[1 + i % 3], i, repeat('p', 2500)
FROM generate_series(1, 150) i;
INSERT INTO parted_twice SELECT i, 'copied' FROM generate_series(1, 150) i;
"""

AFTER: Final = (
    "INSERT INTO plain SELECT i, NULL, 'streamed ' || i FROM generate_series(301, 400) i",
    "UPDATE plain SET n = n + 1, note = E'tab\\t, \\\\N and\\nline' WHERE id % 5 = 0",
    "UPDATE plain SET id = id + 1000 WHERE id % 7 = 0; DELETE FROM plain WHERE id BETWEEN 20 AND 40",
    "UPDATE stored SET n = -n WHERE id < 4; UPDATE stored SET other = 'short' WHERE id IN (3, 4); "
    "UPDATE stored SET id = id + 100 WHERE id IN (4, 5); UPDATE stored SET big = NULL WHERE id = 6; "
    "DELETE FROM stored WHERE id = 7; INSERT INTO stored VALUES (7, 0, repeat('again', 1000), NULL)",
    "UPDATE stored_full SET n = -n WHERE id < 4; UPDATE stored_full SET other = 'short' WHERE id IN (3, 4); "
    "UPDATE stored_full SET id = id + 100 WHERE id IN (4, 5); DELETE FROM stored_full WHERE id = 7",
    "UPDATE coded SET n = -n WHERE id < 5; UPDATE coded SET code = 'moved ' || code WHERE id > 5; "
    "UPDATE coded SET kind = 7, big = 'short' WHERE id = 2; UPDATE coded SET id = id + 50 WHERE id < 3; "
    "DELETE FROM coded WHERE id = 8",
    "DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE x = 1 LIMIT 3); "
    "UPDATE bag SET y = 'other' WHERE ctid IN (SELECT ctid FROM bag WHERE y IS NULL LIMIT 4); "
    "INSERT INTO bag SELECT 9, 'same' FROM generate_series(1, 5); DELETE FROM bag WHERE x = 2",
    "UPDATE computed SET n = n + 10 WHERE id < 5; DELETE FROM computed WHERE id = 9; "
    "INSERT INTO computed (n, z) VALUES (1, NULL)",
    "INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES; "
    "DELETE FROM nothing WHERE ctid IN (SELECT ctid FROM nothing LIMIT 1)",
    "TRUNCATE parent CASCADE",
    "INSERT INTO parent VALUES (7); INSERT INTO child VALUES (70, 7)",
    "UPDATE parted SET n = n + 1 WHERE id < 30; UPDATE parted SET area = 'south' WHERE area = 'north' AND id < 60; "
    "UPDATE parted SET area = 'north' WHERE area = 'east' AND id > 100; "
    "UPDATE parted SET id = id + 500 WHERE area = 'east'; "
    "DELETE FROM parted WHERE id % 10 = 1; INSERT INTO parted VALUES (900, 'new', 1, 'short')",
    "TRUNCATE parted_twice; INSERT INTO parted_twice VALUES (1, 'again'), (200, NULL)",
    "INSERT INTO bag VALUES (1, 'rolled back'); ROLLBACK",
    "INSERT INTO plain VALUES (5000, 1, 'kept'); SAVEPOINT s; INSERT INTO plain VALUES (5001, 1, 'not kept'); "
    "ROLLBACK TO s; UPDATE plain SET n = 2 WHERE id = 5000",
    "ALTER TABLE plain ADD added numeric(9,3); UPDATE plain SET added = 1.5 WHERE id < 10; "
    "INSERT INTO plain VALUES (6000, 1, 'with the new column', 2.250)",
    "INSERT INTO plain VALUES (6001, 1, 'a value', 3); ALTER TABLE plain ADD more text; "
    "UPDATE plain SET more = 'more' WHERE id IN (6000, 6001)",
    "ALTER TABLE bag ADD added int; INSERT INTO bag VALUES (1, 'new', 5); "
    "DELETE FROM bag WHERE x = 0 AND added IS NULL",
)
"""Each is one transaction."""


@pytest.fixture
def replicated(
    place: Place,
    source_database: Database,
    tmp_path: Path,
    postgres_server: Callable[[int], RunningServer],
) -> Iterator[Replicated]:
    replicated = Replicated.into(place, source_database, tmp_path, postgres_server)
    yield replicated
    replicated.close()


every_target = pytest.mark.parametrize("place", PLACES)
oldest_and_newest = pytest.mark.parametrize("postgres_major", [MAJORS[0], MAJORS[-1]], indirect=True)
newest_only = pytest.mark.parametrize("postgres_major", MAJORS[-1:], indirect=True)


def commit(database: Database, *transactions: str) -> None:
    """Run each text as one transaction; one that ends with ROLLBACK is rolled back."""
    for text in transactions:
        database.execute(f"BEGIN; {text}" + ("" if text.endswith("ROLLBACK") else "; COMMIT"))


@every_major
@every_target
def test_all_kinds_of_tables_and_changes_arrive(replicated: Replicated, postgres_major: int) -> None:
    source = replicated.source
    source.execute(SCHEMA)
    if not replicated.target:
        # DuckDB has no tables without columns; `cdcrep check` says so.
        replicated.include = ("public.[!n]*",)
    if postgres_major >= 18:
        source.execute("ALTER TABLE computed ADD virtual int GENERATED ALWAYS AS (n * 3) VIRTUAL")
    commit(source, BEFORE)

    replicated.catch_up()
    replicated.assert_equal()
    commit(source, *AFTER)
    replicated.catch_up()

    replicated.assert_equal()


@oldest_and_newest
@every_target
def test_hostile_names_are_names_like_any_other(replicated: Replicated) -> None:
    source = replicated.source
    columns = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in HOSTILE)
    with source.connect() as connection:
        for i, name in enumerate(HOSTILE):
            schema = sql.Identifier(name) if i % 2 else sql.Identifier("public")
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
            table = sql.SQL("{}.{}").format(schema, sql.Identifier(name))
            connection.execute(
                sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(table, columns, sql.Identifier(name))
            )
            insert(connection, table, "copied")
    replicated.catch_up()
    replicated.assert_equal()

    with source.connect() as connection:
        for schema_name, name in replicated.tables():
            table = sql.SQL("{}.{}").format(sql.Identifier(schema_name), sql.Identifier(name))
            key, other = sql.Identifier(name), sql.Identifier(HOSTILE[0] if name != HOSTILE[0] else HOSTILE[1])
            insert(connection, table, "streamed")
            connection.execute(sql.SQL("UPDATE {} SET {} = 'updated' WHERE {} = 'copied'").format(table, other, key))
            connection.execute(sql.SQL("UPDATE {} SET {} = 'moved' WHERE {} = 'streamed'").format(table, key, key))
            connection.execute(sql.SQL("ALTER TABLE {} ADD {} int").format(table, sql.Identifier("add'ed\" %\n😀")))
            insert(connection, table, "later")
    replicated.catch_up()

    replicated.assert_equal()


def insert(connection: psycopg.Connection[tuple[object, ...]], table: sql.Composable, value: str) -> None:
    values = sql.SQL(", ").join([sql.Literal(value)] * len(HOSTILE))
    connection.execute(sql.SQL("INSERT INTO {} VALUES ({})").format(table, values))


@oldest_and_newest
@every_target
def test_a_table_of_1600_columns_arrives(replicated: Replicated) -> None:
    source = replicated.source
    columns = ", ".join(f"c{i} int" for i in range(1599))
    source.execute(f"CREATE TABLE wide (id int PRIMARY KEY, {columns})")
    source.execute("INSERT INTO wide (id, c0, c1598) SELECT i, i, -i FROM generate_series(1, 20) i")
    replicated.catch_up()
    replicated.assert_equal()

    full = ", ".join(["i"] * 1600)
    commit(
        source,
        f"INSERT INTO wide SELECT {full} FROM generate_series(100, 180) i",
        "UPDATE wide SET c1598 = 7, c700 = NULL WHERE id % 2 = 0; UPDATE wide SET id = -id WHERE id < 5; "
        "DELETE FROM wide WHERE id > 170",
    )
    replicated.catch_up()

    replicated.assert_equal()


@newest_only
@every_target
def test_a_value_of_50_megabytes_arrives(replicated: Replicated) -> None:
    source = replicated.source
    source.execute("CREATE TABLE large (id int PRIMARY KEY, n int, big text)")
    value = "repeat(E'\\\\large\\n\\t{}', 6 << 20)"
    commit(source, f"INSERT INTO large VALUES (1, 1, {value.format('a')})")
    replicated.catch_up()

    for statement in (
        "UPDATE large SET n = 2",
        "UPDATE large SET id = 3",
        f"UPDATE large SET big = {value.format('b')}",
        f"DELETE FROM large; INSERT INTO large VALUES (2, 1, {value.format('c')})",
    ):
        commit(source, statement)
        replicated.catch_up()

    digests = "SELECT id, n, length(big), md5(big) FROM public.large ORDER BY id"
    assert replicated.run_on_target(digests) == source.execute(digests)
