"""Every obstacle is reported with a hint, and running the hint removes it."""

from __future__ import annotations

import pytest

from cdcrep.errors import SetupError, TransientError
from tests.integration.postgres_source import fatal, source
from tests.servers.database import Database, RunningServer
from tests.servers.fix_postgres import DEFAULT_MAJOR, StartServer, every_major

HOSTILE = [
    'a"b',
    "a'b",
    "a.b",
    "a b",
    "a%sb",
    "%(x)s",
    "a;--",
    "a\nb",
    "{}",
    "é" * 31,
    "😀" * 15,
    "x" * 63,
    "select",
    "\\x",
]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@every_major
def test_a_ready_table_meets_no_fatal_obstacle(source_database: Database) -> None:
    source_database.execute("CREATE TABLE orders (id int PRIMARY KEY)")

    with source(source_database) as opened:
        assert fatal(opened) == {}
        assert [str(table.id) for table in opened.tables()] == ["public.orders"]


@pytest.mark.parametrize(
    ("statements", "what"),
    [
        ("CREATE TABLE t (a int)", "public.t has no primary key"),
        ("CREATE TABLE t (a int PRIMARY KEY DEFERRABLE)", "public.t has no primary key"),
        ("CREATE TABLE t (a int PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY NOTHING", "has replica identity NOTHING"),
        ("CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a) STORED PRIMARY KEY)", "contains generated columns"),
        ("CREATE UNLOGGED TABLE t (a int PRIMARY KEY)", "public.t is unlogged"),
        (
            "CREATE TABLE t (a int PRIMARY KEY) PARTITION BY LIST (a);"
            "CREATE TABLE t1 PARTITION OF t DEFAULT; ALTER TABLE t REPLICA IDENTITY FULL",
            "partition public.t1 has another replica identity",
        ),
        (
            "CREATE TABLE t (a int PRIMARY KEY) PARTITION BY LIST (a); CREATE UNLOGGED TABLE t1 PARTITION OF t DEFAULT",
            "partition public.t1 of public.t is unlogged",
        ),
    ],
)
def test_the_hint_makes_a_table_fit(source_database: Database, statements: str, what: str) -> None:
    source_database.execute(statements)

    with source(source_database, "public.t") as opened:
        obstacles = fatal(opened)
        assert [what in found for found in obstacles] == [True]
        with pytest.raises(SetupError, match=what):
            opened.set_up()
        source_database.execute(next(iter(obstacles.values())))
        assert fatal(opened) == {}
        assert opened.set_up()


@pytest.mark.parametrize(
    ("publication", "what"),
    [
        ("FOR TABLE t WITH (publish = 'insert, update', publish_via_partition_root)", "leaves out delete, truncate"),
        ("FOR TABLE t, part", "publishes partitions under their own names"),
        ("FOR TABLE part WITH (publish_via_partition_root)", "lacks public.t"),
        ("FOR TABLE t, part, other WITH (publish_via_partition_root)", "publishes public.other"),
        (
            "FOR TABLE t WHERE (a > 1), part WITH (publish_via_partition_root)",
            "row filter or a column list for public.t",
        ),
        ("FOR TABLE t (a), part WITH (publish_via_partition_root)", "row filter or a column list for public.t"),
    ],
)
def test_the_hint_makes_a_given_publication_fit(source_database: Database, publication: str, what: str) -> None:
    source_database.execute(
        "CREATE TABLE t (a int PRIMARY KEY, b int); CREATE TABLE other (a int PRIMARY KEY);"
        "CREATE TABLE part (a int PRIMARY KEY) PARTITION BY LIST (a); CREATE TABLE part1 PARTITION OF part DEFAULT;"
        f"CREATE PUBLICATION given {publication}"
    )

    with source(source_database, "public.t", "public.part", publication="given", create_publication=False) as opened:
        obstacles = fatal(opened)
        assert any(what in found for found in obstacles)
        for hint in obstacles.values():
            source_database.execute(hint)
        assert fatal(opened) == {}


def test_a_publication_that_is_not_there_is_asked_for_in_full(source_database: Database) -> None:
    source_database.execute('CREATE TABLE "t%s""" (a int PRIMARY KEY)')

    with source(source_database, publication="given", create_publication=False) as opened:
        ((what, hint),) = fatal(opened).items()
        source_database.execute(hint)
        assert what == "publication 'given' does not exist"
        assert fatal(opened) == {}


@every_major
def test_a_role_learns_everything_it_lacks_at_once(source_database: Database) -> None:
    role = source_database.create_role("LOGIN NOREPLICATION")
    source_database.execute(
        "CREATE SCHEMA sales; CREATE TABLE sales.orders (id int PRIMARY KEY);"
        "ALTER TABLE sales.orders ENABLE ROW LEVEL SECURITY"
    )

    with source(source_database, "sales.*", url=source_database.url_as(role)) as opened:
        obstacles = fatal(opened)
        assert len(obstacles) == 4
        for hint in obstacles.values():
            source_database.execute(hint)
        assert fatal(opened) == {}


def test_a_plain_role_that_owns_its_tables_replicates_without_help(source_database: Database) -> None:
    role = source_database.create_role("LOGIN REPLICATION")
    source_database.execute(
        f"CREATE SCHEMA own AUTHORIZATION {role}; GRANT CREATE ON DATABASE {source_database.name} TO {role}"
    )
    with source_database.connect(user=role) as connection:
        connection.execute("CREATE TABLE own.orders AS SELECT 1 AS id; ALTER TABLE own.orders ADD PRIMARY KEY (id)")

    with source(source_database, "own.*", url=source_database.url_as(role)) as opened:
        assert fatal(opened) == {}
        opened.set_up()
        opened.start().close()
        opened.current()
        opened.status(None)
        assert len(opened.tear_down()) == 2


def test_a_pattern_without_a_table_is_an_obstacle(source_database: Database) -> None:
    source_database.execute("CREATE TABLE orders (id int PRIMARY KEY)")

    with source(source_database, "public.*", "public.ordres") as opened:
        assert list(fatal(opened)) == ["no table matches 'public.ordres'"]


def test_what_cannot_be_followed_is_left_out_when_only_a_pattern_matches_it(source_database: Database) -> None:
    source_database.execute(
        "CREATE TABLE t (a int PRIMARY KEY); CREATE VIEW v AS SELECT 1; CREATE MATERIALIZED VIEW m AS SELECT 1;"
        "CREATE UNLOGGED TABLE u (a int PRIMARY KEY)"
    )

    with source(source_database) as opened:
        told = [obstacle.what for obstacle in opened.obstacles() if "not copied" in obstacle.what]
        assert fatal(opened) == {}
        assert len(told) == 3
    with source(source_database, "public.v") as opened:
        assert len(fatal(opened)) == 1


def test_a_type_that_is_not_mapped_is_named_with_its_column(source_database: Database) -> None:
    source_database.execute(
        "CREATE TYPE own; CREATE FUNCTION own_in(cstring) RETURNS own LANGUAGE internal STRICT IMMUTABLE AS 'int4in';"
        "CREATE FUNCTION own_out(own) RETURNS cstring LANGUAGE internal STRICT IMMUTABLE AS 'int4out';"
        "CREATE TYPE own (INPUT = own_in, OUTPUT = own_out, LIKE = int4);"
        "CREATE TABLE t (a int PRIMARY KEY, b own)"
    )

    with source(source_database) as opened:
        (what,) = fatal(opened)
        assert what == "column 'b' of public.t: type public.own is not supported"
        assert opened.tables() == []


def test_a_type_of_an_extension_is_told_but_carried(source_database: Database) -> None:
    source_database.execute("CREATE EXTENSION hstore; CREATE TABLE t (a int PRIMARY KEY, b hstore[])")

    with source(source_database) as opened:
        assert fatal(opened) == {}
        assert any("extension 'hstore'" in obstacle.what for obstacle in opened.obstacles())
        assert len(opened.tables()) == 1


def test_settings_of_the_server_are_checked(own_postgres_server: StartServer) -> None:
    server = own_postgres_server(wal_level="replica", max_wal_senders="0", max_replication_slots="0")
    database = Database.create(RunningServer(DEFAULT_MAJOR, server.dsn))
    database.execute("CREATE TABLE t (a int PRIMARY KEY)")

    with source(database) as opened:
        obstacles = fatal(opened)
        assert len(obstacles) == 3
        for hint in obstacles.values():
            database.execute(hint)
    # Options on the command line would win over ALTER SYSTEM.
    for setting in ("wal_level", "max_wal_senders", "max_replication_slots"):
        del server.settings[setting]
    server.restart()
    with source(database) as opened:
        assert fatal(opened) == {}


def test_an_encoding_without_meaning_is_refused(source_database: Database) -> None:
    name = f"{source_database.name}_ascii"
    source_database.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    database = Database(source_database.server, name)
    try:
        with source(database, "*") as opened:
            assert any("SQL_ASCII" in what for what in fatal(opened))
    finally:
        database.drop()


def test_a_foreign_slot_of_the_same_name_is_refused(source_database: Database) -> None:
    source_database.execute("CREATE TABLE t (a int PRIMARY KEY)")
    source_database.execute(
        "SELECT pg_create_logical_replication_slot('other_' || current_database(), 'test_decoding')"
    )

    with source(source_database, slot=f"other_{source_database.name}") as opened:
        (what,) = fatal(opened)
        assert "test_decoding" in what


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_all_kinds_are_set_up_and_copied(source_database: Database, name: str) -> None:
    source_database.execute(
        f"CREATE SCHEMA {quoted(name)};"
        f"CREATE TYPE {quoted(name)}.{quoted('t' + name[1:])} AS ENUM ('x', 'y');"
        f"CREATE TABLE {quoted(name)}.{quoted(name)} "
        f"({quoted(name)} int PRIMARY KEY, b {quoted(name)}.{quoted('t' + name[1:])});"
        f"INSERT INTO {quoted(name)}.{quoted(name)} VALUES (1, 'x')"
    )

    with source(source_database, "*", publication=name) as opened:
        opened.set_up()
        (table,) = opened.tables()
        snapshot = opened.start()
        (chunk,) = snapshot.chunks(table, None)
        (batch,) = snapshot.read(chunk)["arrow"]()
        snapshot.close()
        opened.tear_down()

    assert (table.schema, table.name, table.key) == (name, name, (name,))
    assert batch.to_pylist() == [{name: "1", "b": "x"}]


def test_a_locked_publication_is_given_up_after_the_lock_timeout(source_database: Database) -> None:
    source_database.execute("CREATE TABLE t (a int PRIMARY KEY)")

    with source(source_database, lock_timeout=0.05) as opened, source_database.connect() as locker:
        locker.execute("BEGIN")
        locker.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TransientError, match="lock timeout"):
            opened.set_up()
