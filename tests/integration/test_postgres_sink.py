"""What the PostgreSQL sink does beyond the contract of sinks: fences, order, keys, constraints of the target."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest

from cdcrep import crashpoint
from cdcrep.errors import DivergedError, SetupError, TransientError
from cdcrep_connectors.postgres.sink import PostgresSink
from tests.integration.building_changes import Recorder, make_batch, make_table
from tests.integration.postgres_target import follow, make_sink
from tests.servers.database import Database
from tests.servers.fault_proxy import FaultProxy

ITEMS = make_table("items", "id integer, note text, big text", "id")
LOG = make_table("log", "n integer, note text")


@pytest.fixture
def sink(target_database: Database) -> Iterator[PostgresSink]:
    sink = follow(make_sink(target_database.url), ITEMS, LOG)
    yield sink
    sink.close()


def items(database: Database) -> list[tuple[Any, ...]]:
    return database.execute("SELECT id, note, big FROM items ORDER BY id")


def many(first: int, count: int, note: str = "x") -> Recorder:
    recorder = Recorder(ITEMS)
    for i in range(first, first + count):
        recorder.insert(str(i), note, None)
    return recorder


@pytest.mark.parametrize("rows", [1, 100], ids=["direct", "staged"])
def test_a_fenced_process_changes_nothing(target_database: Database, sink: PostgresSink, rows: int) -> None:
    successor = make_sink(target_database.url)
    successor.open()

    with pytest.raises(DivergedError, match="fenced"):
        sink.apply(make_batch("1", many(1, rows)))

    assert items(target_database) == []
    successor.close()


@pytest.mark.parametrize("rows", [1, 100], ids=["direct", "staged"])
def test_a_position_that_was_moved_by_hand_stops_the_process(
    target_database: Database, sink: PostgresSink, rows: int
) -> None:
    target_database.execute("UPDATE cdcrep.checkpoints SET position = 'elsewhere'")

    with pytest.raises(DivergedError, match="fenced"):
        sink.apply(make_batch("1", many(1, rows)))

    assert items(target_database) == []


@pytest.mark.parametrize("rows", [1, 100], ids=["direct", "staged"])
def test_a_commit_whose_reply_is_lost_is_found_after_opening_again(
    target_database: Database, fault_proxy: Callable[[str], FaultProxy], rows: int
) -> None:
    proxy = fault_proxy(target_database.url)
    sink = follow(make_sink(proxy.url(target_database.url)), ITEMS)
    sink.apply(make_batch("1", many(1, rows)))
    proxy.drop_reply_to(b"COMMIT" if rows > 1 else b"cdcrep_")

    with pytest.raises(TransientError):
        sink.apply(make_batch("2", many(1000, rows)))

    sink.close()
    again = make_sink(target_database.url)
    assert again.open().position == "2"
    assert len(items(target_database)) == 2 * rows
    again.close()


def test_bookkeeping_of_a_newer_version_is_refused(target_database: Database, sink: PostgresSink) -> None:
    target_database.execute("UPDATE cdcrep.version SET version = 99")

    with pytest.raises(SetupError, match="version 99"):
        make_sink(target_database.url).open()


def test_the_views_show_position_and_copies(target_database: Database, sink: PostgresSink) -> None:
    sink.finish([ITEMS.id])
    sink.apply(make_batch("1", many(1, 3), Recorder(LOG).insert("1", None)))

    checkpoint = target_database.execute(
        "SELECT pipeline, source, position, epoch, commit_time IS NULL, transactions, rows, updated_at <= now() "
        "FROM cdcrep.checkpoint"
    )
    copies = target_database.execute("SELECT table_name, done, position, changes FROM cdcrep.backfill ORDER BY 1")
    assert checkpoint == [("shop", "acme://db/shop", "1", 1, False, 1, 4, True)]
    assert copies == [("items", True, "0", 3), ("log", False, "0", 1)]


def test_rows_that_were_deleted_by_hand_come_back_and_are_counted(
    target_database: Database, sink: PostgresSink
) -> None:
    sink.apply(make_batch("1", many(1, 3)))
    target_database.execute("DELETE FROM items WHERE id = 2")

    sink.apply(make_batch("2", Recorder(ITEMS).update("2", "back", "whole").delete("9")))

    assert items(target_database) == [(1, "x", None), (2, "back", "whole"), (3, "x", None)]
    assert target_database.execute("SELECT missing FROM cdcrep.tables WHERE table_name = 'items'") == [(2,)]


@pytest.mark.parametrize("repeat", [1, 50], ids=["direct", "staged"])
def test_values_of_a_unique_column_swap(target_database: Database, sink: PostgresSink, repeat: int) -> None:
    target_database.execute("CREATE UNIQUE INDEX ON items (note); ALTER TABLE items ADD own int")
    start = Recorder(ITEMS)
    for i in range(2 * repeat):
        start.insert(str(i), f"note {i}", f"big {i}")
    sink.apply(make_batch("1", start))
    target_database.execute("UPDATE items SET own = id")
    swap = Recorder(ITEMS)
    for i in range(0, 2 * repeat, 2):
        swap.update(str(i), None, None, unchanged=[2])
        swap.update(str(i + 1), f"note {i}", None, unchanged=[2])
        swap.update(str(i), f"note {i + 1}", None, unchanged=[2])

    sink.apply(make_batch("2", swap))

    expected = [(i, f"note {i ^ 1}", f"big {i}", i) for i in range(2 * repeat)]
    assert target_database.execute("SELECT id, note, big, own FROM items ORDER BY id") == expected


def test_all_keys_move_up_by_one(target_database: Database, sink: PostgresSink) -> None:
    sink.apply(make_batch("1", many(1, 200)))
    target_database.execute("UPDATE items SET big = 'kept ' || id")
    moves = Recorder(ITEMS)
    for i in range(200, 0, -1):
        moves.update(str(i + 1), f"was {i}", None, old=(str(i),), unchanged=[2])

    sink.apply(make_batch("2", moves))

    assert items(target_database) == [(i + 1, f"was {i}", f"kept {i}") for i in range(1, 201)]


def test_many_rows_in_any_order_keep_what_was_not_sent_of_each(target_database: Database, sink: PostgresSink) -> None:
    sink.apply(make_batch("1", many(1, 3000)))
    target_database.execute("UPDATE items SET big = 'kept ' || id")
    numbers = list(range(1, 3001))
    random.Random(7).shuffle(numbers)
    changes = Recorder(ITEMS)
    for i in numbers:
        changes.update(str(i), f"now {i}", f"sent {i}", unchanged=[2] if i % 3 else [])

    sink.apply(make_batch("2", changes))

    assert items(target_database) == [(i, f"now {i}", f"kept {i}" if i % 3 else f"sent {i}") for i in range(1, 3001)]


def test_numerically_equal_keys_of_other_text_are_one_row(target_database: Database) -> None:
    prices = make_table("prices", "amount numeric, note text, big text", "amount")
    sink = follow(make_sink(target_database.url), prices)
    sink.apply(make_batch("1", Recorder(prices).insert("1.0", "a", "big")))

    sink.apply(make_batch("2", Recorder(prices).update("1.00", "b", None, old=("1.0",), unchanged=[2])))

    assert target_database.execute("SELECT amount::text, note, big FROM prices") == [("1.00", "b", "big")]
    sink.close()


FAMILY = [make_table("parent", "id integer, note text", "id"), make_table("child", "id integer, parent integer", "id")]


def make_family(database: Database, role: str, action: str) -> PostgresSink:
    """Follow two tables with a foreign key, as a role that may not switch foreign keys off."""
    database.execute(f"GRANT ALL ON DATABASE {database.name} TO {role}; GRANT ALL ON SCHEMA public TO {role}")
    sink = follow(make_sink(database.url_as(role)), *FAMILY)
    database.execute(f"ALTER TABLE child ADD FOREIGN KEY (parent) REFERENCES parent {action}")
    sink.close()
    sink.open()
    return sink


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("count", [1, 80], ids=["direct", "staged"])
def test_foreign_keys_of_the_target_are_obeyed_where_they_cannot_be_switched_off(
    target_database: Database, order: int, count: int
) -> None:
    parent, child = FAMILY
    sink = make_family(target_database, target_database.create_role("LOGIN"), "")
    recorders = [Recorder(parent), Recorder(child)]
    for i in range(count):
        recorders[0].insert(str(i), "x")
        recorders[1].insert(str(i), str(i))

    sink.apply(make_batch("1", *recorders[::order]))
    assert target_database.execute("SELECT count(*) FROM child") == [(count,)]

    recorders = [Recorder(parent), Recorder(child)]
    for i in range(count):
        recorders[0].delete(str(i))
        recorders[1].delete(str(i))
    sink.apply(make_batch("2", *recorders[::order]))

    assert target_database.execute("SELECT count(*) FROM parent") == [(0,)]
    sink.close()


def test_rows_are_not_taken_out_where_that_would_cascade(target_database: Database) -> None:
    parent, child = FAMILY
    sink = make_family(target_database, target_database.create_role("LOGIN"), "ON DELETE CASCADE")
    target_database.execute("CREATE UNIQUE INDEX ON parent (note)")
    sink.close()
    sink.open()
    sink.apply(make_batch("1", Recorder(parent).insert("1", "a").insert("2", "b"), Recorder(child).insert("1", "1")))

    swap = Recorder(parent).update("1", "c").update("2", "a").update("1", "b")
    with pytest.raises(SetupError, match="unique values swap"):
        sink.apply(make_batch("2", swap))
    sink.close()

    assert target_database.execute("SELECT count(*) FROM child") == [(1,)]


def test_a_truncated_table_that_others_refer_to_is_emptied(target_database: Database) -> None:
    parent, child = FAMILY
    sink = follow(make_sink(target_database.url), parent, child)
    target_database.execute("CREATE TABLE theirs (parent int REFERENCES parent)")
    sink.apply(make_batch("1", Recorder(parent).insert("1", "a"), Recorder(child).insert("1", "1")))
    emptied = [Recorder(parent, truncated=True), Recorder(child, truncated=True).insert("7", "7")]

    sink.apply(make_batch("2", *emptied))

    assert target_database.execute("SELECT count(*) FROM parent") == [(0,)]
    assert target_database.execute("SELECT id FROM child") == [(7,)]
    sink.close()


def test_triggers_of_the_target_stay_silent(target_database: Database, sink: PostgresSink) -> None:
    target_database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''fired''; END';"
        "CREATE TRIGGER t BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION refuse()"
    )

    sink.apply(make_batch("1", many(1, 1)))
    sink.apply(make_batch("2", many(2, 100)))

    assert len(items(target_database)) == 101


def test_columns_that_the_target_computes_are_left_to_it(target_database: Database) -> None:
    target_database.execute(
        "CREATE TABLE items (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, big text, "
        "note text GENERATED ALWAYS AS (upper(big)) STORED)"
    )
    sink = follow(make_sink(target_database.url), ITEMS)

    sink.apply(make_batch("1", Recorder(ITEMS).insert("1", "from source", "a")))
    sink.apply(make_batch("2", many(2, 80)))
    sink.apply(make_batch("3", Recorder(ITEMS).update("1", "from source", "b").delete("2")))

    assert items(target_database)[:2] == [(1, "B", "b"), (3, None, None)]
    sink.close()


def test_a_cancelled_apply_is_transient(target_database: Database, sink: PostgresSink) -> None:
    crashpoint.listen(lambda point: sink.cancel() if point == "sink.before_rows" else None)
    try:
        with pytest.raises(TransientError, match="cancelled"):
            sink.apply(make_batch("1", many(1, 100)))
    finally:
        crashpoint.listen(None)
    sink.close()

    assert sink.open().position == "0"
    assert items(target_database) == []


def test_obstacles_are_named_all_at_once_with_what_to_type(target_database: Database) -> None:
    role = target_database.create_role("LOGIN")
    exotic = make_table("exotic", "id integer, place nowhere.geography", "id")
    target_database.execute(
        "CREATE TABLE items (id int, note varchar(3), big text); CREATE TABLE log (n int, note text);"
        "INSERT INTO log VALUES (1)"
    )

    found = make_sink(target_database.url_as(role)).obstacles([ITEMS, LOG, exotic])
    target_database.execute("GRANT ALL ON items, log TO PUBLIC")
    found += make_sink(target_database.url_as(role)).obstacles([LOG])

    said = "\n".join(f"{obstacle.what}: {obstacle.hint}" for obstacle in found)
    for part in ("GRANT CREATE ON DATABASE", "nowhere.geography", "CREATE UNIQUE INDEX", "varchar", "holds rows"):
        assert part in said.replace("character varying", "varchar"), said
    assert all(obstacle.hint for obstacle in found if obstacle.fatal)


def test_one_row_batches_touch_no_stage(target_database: Database, sink: PostgresSink) -> None:
    changes: Sequence[Recorder] = [
        Recorder(ITEMS).insert("1", "a", "big"),
        Recorder(ITEMS).update("1", "b", None, unchanged=[2]),
        Recorder(ITEMS).delete("1").insert("2", "c", None),
        Recorder(LOG).insert("1", "x"),
    ]
    sink.apply(make_batch("warm", many(100, 1), Recorder(LOG).insert("0", None)))

    for number, recorder in enumerate(changes):
        sink.apply(make_batch(str(number), recorder))

    assert items(target_database) == [(2, "c", None), (100, "x", None)]
    with psycopg.connect(target_database.dsn) as connection:
        staged = connection.execute("SELECT count(*) FROM pg_class WHERE relpersistence = 't'").fetchone()
    assert staged == (0,)
