"""Changes of a table's shape while it is followed: what can be followed is, anything else stops and loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cdcrep.errors import CdcrepError, DivergedError
from tests.integration.end_to_end import Place, Replicated
from tests.servers.database import Database, RunningServer

NOT_FOLLOWED = {
    "drop": "ALTER TABLE items DROP b",
    "rename": "ALTER TABLE items RENAME b TO z",
    "widen": "ALTER TABLE items ALTER a TYPE bigint",
    "shorten": "ALTER TABLE items ALTER b TYPE varchar(3) USING left(b, 3)",
    "convert": "ALTER TABLE items ALTER b TYPE int USING length(b)",
    "drop a type": "ALTER TABLE items ALTER c TYPE text; DROP TYPE mood",
    "add required": "ALTER TABLE items ADD d int NOT NULL DEFAULT 5",
    "add with default": "ALTER TABLE items ADD d int DEFAULT 5",
    "add with a passing default": "ALTER TABLE items ADD d int DEFAULT 5; ALTER TABLE items ALTER d DROP DEFAULT",
    "add random": "ALTER TABLE items ADD d float8 DEFAULT random()",
    "add serial": "ALTER TABLE items ADD d serial",
    "other key": "ALTER TABLE items DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (id, a)",
}
"""Rows of the old shape stand before each in the stream, rows of the new shape behind it."""

FOLLOWED = {
    "add nullable": "ALTER TABLE items ADD d int",
    "add twice": "ALTER TABLE items ADD d int, ADD e text[]; ALTER TABLE items ADD f mood",
    "default for new rows": "ALTER TABLE items ALTER b SET DEFAULT 'default'",
    "may be null": "ALTER TABLE items ALTER a DROP NOT NULL",
    "must not be null": "UPDATE items SET b = '' WHERE b IS NULL; ALTER TABLE items ALTER b SET NOT NULL",
    "storage": "ALTER TABLE items ALTER b SET STORAGE EXTERNAL, ALTER b SET STATISTICS 10",
    "identity": "ALTER TABLE items REPLICA IDENTITY FULL",
    "label": "ALTER TYPE mood ADD VALUE 'new' BEFORE 'happy'",
    "index": "CREATE INDEX ON items (b); ALTER TABLE items ADD CHECK (a < 100000)",
    "rewrite": "VACUUM FULL items",
}


@pytest.fixture
def replicated(
    place: Place, source_database: Database, tmp_path: Path, postgres_server: Callable[[int], RunningServer]
) -> Iterator[Replicated]:
    replicated = Replicated.into(place, source_database, tmp_path, postgres_server)
    source_database.execute(
        "CREATE TYPE mood AS ENUM ('sad', 'happy'); "
        "CREATE TABLE items (id int PRIMARY KEY, a int NOT NULL, b text, c mood); "
        "INSERT INTO items SELECT i, i, 'copied', 'sad' FROM generate_series(1, 20) i; "
        "CREATE TABLE others (id int PRIMARY KEY, note text); INSERT INTO others VALUES (1, 'copied')"
    )
    replicated.catch_up()
    yield replicated
    replicated.close()


COPY_ANEW = "drop the tables in the target, then start again: they are copied anew"

both_targets = pytest.mark.parametrize("place", ["duckdb", "postgresql-18"])


def change_between_rows(source: Database, statements: str) -> None:
    source.execute("INSERT INTO items VALUES (21, 21, 'before', 'happy'); INSERT INTO others VALUES (2, 'before')")
    for statement in statements.split("; "):
        source.execute(statement)
    source.execute("UPDATE items SET a = -a WHERE id < 3; DELETE FROM items WHERE id = 5")
    source.execute("INSERT INTO items (id, a) VALUES (22, 22); INSERT INTO others VALUES (3, 'behind')")


@both_targets
@pytest.mark.parametrize("change", list(FOLLOWED.values()), ids=list(FOLLOWED))
def test_a_change_that_leaves_the_rows_as_they_are_is_followed(replicated: Replicated, change: str) -> None:
    if "ALTER b SET NOT NULL" in change:
        replicated.source.execute("ALTER TABLE items ALTER b SET DEFAULT ''")
    change_between_rows(replicated.source, change)

    replicated.catch_up()
    replicated.source.execute("UPDATE items SET c = 'happy'; INSERT INTO others VALUES (4, 'later')")
    replicated.catch_up()

    replicated.assert_equal()


@both_targets
@pytest.mark.parametrize("change", list(NOT_FOLLOWED.values()), ids=list(NOT_FOLLOWED))
def test_any_other_change_stops_until_the_table_is_copied_anew(replicated: Replicated, change: str) -> None:
    change_between_rows(replicated.source, change)

    for _ in range(2):
        with pytest.raises(CdcrepError, match=r"public\.items: |column 'c'") as stopped:
            replicated.catch_up()
    assert '["3", "behind"]' not in replicated.target_rows(("public", "others"))
    assert "start again: it is copied anew" in str(stopped.value.hint)
    replicated.run_on_target('DROP TABLE "public"."items"')
    replicated.catch_up()

    replicated.assert_equal()
    replicated.source.execute("UPDATE items SET a = a + 1; INSERT INTO others VALUES (4, 'later')")
    replicated.catch_up()
    replicated.assert_equal()


@both_targets
@pytest.mark.parametrize("lost", ["ALTER PUBLICATION {0} DROP TABLE items", "DROP TABLE items; {create}"])
def test_a_table_that_was_not_published_for_a_while_stops_until_it_is_copied_anew(
    replicated: Replicated, lost: str
) -> None:
    source = replicated.source
    create = "CREATE TABLE items (id int PRIMARY KEY, a int NOT NULL, b text, c mood)"
    source.execute("DELETE FROM items WHERE id = 1")
    source.execute(lost.format(f"cdcrep_{source.name}", create=create))
    source.execute("INSERT INTO items VALUES (21, 21, 'not published', 'sad'); INSERT INTO others VALUES (2, 'x')")

    for _ in range(2):
        with pytest.raises(DivergedError, match=r"has lost public\.items") as stopped:
            replicated.catch_up()
    assert stopped.value.hint == COPY_ANEW
    replicated.run_on_target('DROP TABLE public."items"')
    replicated.catch_up()

    replicated.assert_equal()
    source.execute("UPDATE items SET a = a + 1")
    replicated.catch_up()
    replicated.assert_equal()


@both_targets
@pytest.mark.parametrize("lost", ["ALTER PUBLICATION {0} DROP TABLE items", "DROP TABLE items; {create}"])
def test_a_table_that_was_put_back_into_the_publication_by_hand_stops(replicated: Replicated, lost: str) -> None:
    source = replicated.source
    create = "CREATE TABLE items (id int PRIMARY KEY, a int NOT NULL, b text, c mood)"
    source.execute(lost.format(f"cdcrep_{source.name}", create=create))
    source.execute("INSERT INTO items VALUES (21, 21, 'not published', 'sad')")
    source.execute(f"ALTER PUBLICATION cdcrep_{source.name} ADD TABLE items")
    source.execute("INSERT INTO items VALUES (22, 22, 'published', 'sad')")

    with pytest.raises(DivergedError, match=r"was without public\.items for a while") as stopped:
        replicated.catch_up()
    assert stopped.value.hint == COPY_ANEW
    replicated.run_on_target('DROP TABLE public."items"')
    replicated.catch_up()

    replicated.assert_equal()


@both_targets
def test_a_table_that_somebody_dropped_in_the_target_is_copied_anew(replicated: Replicated) -> None:
    source = replicated.source
    source.execute("UPDATE items SET a = a + 1; INSERT INTO others VALUES (2, 'streamed')")
    replicated.run_on_target("DROP TABLE public.items")
    source.execute("UPDATE items SET a = a + 1")

    replicated.catch_up()
    replicated.assert_equal()
    source.execute("UPDATE items SET a = a + 1")
    replicated.catch_up()

    replicated.assert_equal()
