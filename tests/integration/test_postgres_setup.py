"""Publication and slot: created once, adjusted, refused, dropped."""

from __future__ import annotations

from contextlib import closing

import pytest

from cdcrep.errors import DivergedError, TransientError
from cdcrep.table import TableId
from tests.integration.postgres_source import all_rows, source
from tests.servers.database import Database
from tests.servers.fix_postgres import every_major


def published(database: Database) -> set[str]:
    return {row[0] for row in database.execute("SELECT tablename::text FROM pg_publication_tables")}


@every_major
def test_setting_up_twice_does_nothing_the_second_time(source_database: Database) -> None:
    source_database.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")

    with source(source_database) as opened:
        assert len(opened.set_up()) == 1
        assert opened.set_up() == []

    assert published(source_database) == {"a", "b"}


def test_the_publication_follows_the_configuration(source_database: Database) -> None:
    source_database.execute(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY)"
    )
    with source(source_database, "public.a", "public.b") as opened:
        opened.set_up()

    with source(source_database, "public.b", "public.c") as opened:
        done = opened.set_up()

    assert len(done) == 2
    assert published(source_database) == {"b", "c"}


def test_a_partitioned_table_is_published_as_one(source_database: Database) -> None:
    source_database.execute(
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1) PARTITION BY LIST (id);"
        "CREATE TABLE p11 PARTITION OF p1 DEFAULT; CREATE TABLE p2 PARTITION OF p DEFAULT;"
        "INSERT INTO p VALUES (1), (2), (3)"
    )

    with source(source_database) as opened:
        opened.set_up()
        (table,) = opened.tables()
        snapshot = opened.start()
        copied = sorted(all_rows(snapshot, table))

    assert published(source_database) == {"p"}
    assert copied == [("1",), ("2",), ("3",)]


def test_a_table_that_others_inherit_from_is_published_alone(source_database: Database) -> None:
    source_database.execute(
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent);"
        "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2)"
    )

    with source(source_database, "public.parent") as opened:
        opened.set_up()
        (table,) = opened.tables()
        copied = all_rows(opened.start(), table)

    assert published(source_database) == {"parent"}
    assert copied == [("1",)]


def test_a_lost_publication_is_not_made_anew_beside_its_slot(source_database: Database) -> None:
    source_database.execute("CREATE TABLE a (id int PRIMARY KEY)")
    with source(source_database) as opened:
        opened.set_up()
        opened.start()
    source_database.execute(f"DROP PUBLICATION cdcrep_{source_database.name}")

    with source(source_database) as opened, pytest.raises(DivergedError, match="changes that were made since"):
        opened.set_up()


def test_a_replicated_table_that_left_the_publication_is_not_put_back_silently(source_database: Database) -> None:
    source_database.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
    with source(source_database) as opened:
        opened.set_up()
    source_database.execute(f"ALTER PUBLICATION cdcrep_{source_database.name} DROP TABLE a")

    with source(source_database) as opened, pytest.raises(DivergedError, match=r"has lost public\.a"):
        opened.set_up({TableId("public", "a"), TableId("public", "b")})

    assert published(source_database) == {"b"}


@every_major
def test_a_left_over_slot_is_replaced_by_start(source_database: Database) -> None:
    source_database.execute("CREATE TABLE a (id int PRIMARY KEY)")
    with source(source_database) as opened:
        opened.set_up()
        first = opened.start().position
    source_database.execute("INSERT INTO a VALUES (1)")

    with source(source_database) as opened:
        snapshot = opened.start()
        (table,) = opened.tables()
        copied = all_rows(snapshot, table)

    assert snapshot.position != first
    assert copied == [("1",)]
    assert len(source_database.execute("SELECT 1 FROM pg_replication_slots WHERE database = current_database()")) == 1


def test_a_slot_in_use_is_refused_with_its_process(source_database: Database) -> None:
    source_database.execute("CREATE TABLE a (id int PRIMARY KEY)")
    with source(source_database) as opened, closing(source_database.connect(replication="database")) as other:
        opened.set_up()
        opened.start().close()
        other.pgconn.send_query(
            f"START_REPLICATION SLOT cdcrep_{source_database.name} LOGICAL 0/0 "
            f"(proto_version '1', publication_names 'cdcrep_{source_database.name}')".encode()
        )
        other.pgconn.get_result()

        with pytest.raises(TransientError, match=f"in use by process {other.info.backend_pid}"):
            opened.start()


def test_creating_a_slot_behind_an_open_transaction_ends_with_its_process(source_database: Database) -> None:
    source_database.execute("CREATE TABLE a (id int PRIMARY KEY)")

    with source(source_database, slot_timeout=0.2) as opened, source_database.connect() as writer:
        opened.set_up()
        pid = writer.info.backend_pid
        writer.execute("BEGIN")
        writer.execute("INSERT INTO a VALUES (1)")
        with pytest.raises(TransientError) as refusal:
            opened.start()

    assert str(pid) in str(refusal.value)
    assert source_database.execute("SELECT 1 FROM pg_replication_slots WHERE database = current_database()") == []


@pytest.mark.parametrize("postgres_major", [17, 18], indirect=True)
def test_a_failover_slot_is_created_when_asked_for(source_database: Database) -> None:
    source_database.execute("CREATE TABLE a (id int PRIMARY KEY)")

    with source(source_database, failover=True) as opened:
        opened.set_up()
        opened.start().close()

    assert source_database.execute("SELECT failover FROM pg_replication_slots WHERE database = current_database()") == [
        (True,)
    ]


def test_tearing_down_leaves_nothing_and_can_be_repeated(source_database: Database) -> None:
    source_database.execute("CREATE TABLE a (id int PRIMARY KEY)")

    with source(source_database) as opened:
        opened.set_up()
        opened.start().close()
        done, again = opened.tear_down(), opened.tear_down()

    assert (len(done), again) == (2, [])
    assert published(source_database) == set()


def test_a_given_publication_survives_tearing_down(source_database: Database) -> None:
    source_database.execute("CREATE TABLE a (id int PRIMARY KEY)")
    source_database.execute("CREATE PUBLICATION given FOR TABLE a WITH (publish_via_partition_root)")

    with source(source_database, publication="given", create_publication=False) as opened:
        opened.set_up()
        opened.tear_down()

    assert published(source_database) == {"a"}


@every_major
def test_the_current_position_is_reached_and_an_idle_server_has_no_lag(source_database: Database) -> None:
    source_database.execute("CREATE TABLE a (id int PRIMARY KEY)")

    with source(source_database) as opened:
        opened.set_up()
        opened.start().close()
        current = opened.current()
        status = opened.status(current)
        source_database.execute("INSERT INTO a SELECT generate_series(1, 100)")
        later = opened.status(current)

    assert status.details["slot_state"] == "inactive"
    assert later.lag_bytes > 100
    assert later.retained_bytes is not None
    assert later.retained_bytes >= later.lag_bytes
