"""Copies from real MySQL and MariaDB servers that were interrupted go on, with what has changed since."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from cdcrep.connector import Chunk, Copied
from cdcrep.errors import TransientError
from cdcrep_connectors.mysql import changed_keys, reread
from cdcrep_connectors.mysql.first_view import FirstView, noted_position
from cdcrep_connectors.mysql.reread import Reread, has_exact_keys
from cdcrep_connectors.mysql.sql_text import quoted_table
from tests.integration.interrupted_copy import InterruptedCopy
from tests.integration.mysql_following import run, source_of
from tests.servers.fix_mysql import every_mysql
from tests.servers.mysql_database import MySQLDatabase

FILLED: Final = (
    "CREATE TABLE t (id int PRIMARY KEY, v varchar(3000), n int)",
    "SET sql_log_bin = 0",
    "INSERT INTO t VALUES (0, repeat('v', 3000), 0)",
    *(f"INSERT INTO t SELECT id + {10 << i}, v, n FROM t" for i in range(11)),
    "ANALYZE TABLE t",
    "SET sql_log_bin = 1",
)
"""2,048 rows in more than six chunks: the keys are 0, 10, … 20,470."""

CHANGES: Final = (
    # Each in ranges that are done and in others.
    "UPDATE t SET n = 1 WHERE id % 1000 = 0",
    "DELETE FROM t WHERE id % 1000 = 10",
    "INSERT INTO t SELECT id + 3, 'new', 3 FROM t WHERE id % 1000 = 20",
    # To the other end, and back, and around.
    "UPDATE t SET id = 20475 - id WHERE id % 1000 = 30",
    "UPDATE t SET id = 100000 + id WHERE id % 2000 = 40",
    "UPDATE t SET id = id - 100000 WHERE id > 100000 AND id % 4000 = 40",
    "UPDATE t SET id = -id WHERE id > 100000",
    "INSERT INTO t VALUES (2010, 'again', 4), (10010, 'again', 4)",
    "XA START 'x'",
    "UPDATE t SET n = 5 WHERE id % 1000 = 60",
    "XA END 'x'",
    "XA PREPARE 'x'",
    "XA COMMIT 'x'",
)


@pytest.fixture
def filled(mysql_source: MySQLDatabase) -> MySQLDatabase:
    """A database with the table `t`."""
    run(mysql_source, *FILLED)
    return mysql_source


@every_mysql
def test_ranges_that_are_done_are_not_read_again_but_for_what_changed(filled: MySQLDatabase) -> None:
    with closing(source_of(filled)) as source:
        copy = InterruptedCopy.begun(filled, source, done=(0, 1, 3))
        durable, copied = copy.copied.chunks, set(copy.rows)
        run(filled, *CHANGES)
        # The log may be read a little further than to the view, so that some of these are read again, too.
        later = ("UPDATE t SET n = 9 WHERE id % 1000 IN (0, 100)", "DELETE FROM t WHERE id % 1000 = 110")
        expected = copy.goes_on(lambda: run(filled, *later))

    assert sorted(copy.rows.values()) == expected
    assert len(durable) == 3
    assert not durable & copy.read.keys()
    # Of the rows that the copy had, those that changed, and no others.
    again = {key for keys in copy.read.values() for key in keys} & copied
    assert {0, 10, 40, 60} <= {id_ % 1000 for (id_,) in again} <= {0, 10, 40, 60, 100, 110}


@every_mysql
def test_a_copy_that_is_interrupted_again_goes_on_once_more(filled: MySQLDatabase) -> None:
    with closing(source_of(filled)) as source:
        copy = InterruptedCopy.begun(filled, source, done=(0, 1, 3))
        note = copy.copied.snapshot
        run(filled, *CHANGES)
        copy.goes_on(only=lambda chunk: chunk.name.startswith(("part 3 ", "part 5 ", "changes")))
        durable = copy.copied.chunks
        run(filled, "UPDATE t SET n = 6 WHERE id % 1000 = 70", "DELETE FROM t WHERE id % 1000 = 80")
        run(filled, "UPDATE t SET id = id + 4 WHERE id % 1000 = 90")
        expected = copy.goes_on()

    assert sorted(copy.rows.values()) == expected
    assert copy.copied.snapshot == note
    assert len(durable) == 6
    assert not durable & copy.read.keys()


@every_mysql
def test_nothing_is_read_where_nothing_changed_and_every_range_is_done(filled: MySQLDatabase) -> None:
    with closing(source_of(filled)) as source:
        copy = InterruptedCopy.begun(filled, source)
        filled.execute("CREATE TABLE other (id int PRIMARY KEY)")
        filled.execute("INSERT INTO other VALUES (1)")
        copy.goes_on()

    assert copy.read == {}


@pytest.mark.parametrize("removal", ["DELETE FROM t WHERE id % 1000 = 80", "TRUNCATE TABLE t"])
def test_rows_that_were_removed_without_another_change_are_pruned(filled: MySQLDatabase, removal: str) -> None:
    with closing(source_of(filled)) as source:
        copy = InterruptedCopy.begun(filled, source)
        run(filled, removal)
        copy.goes_on(only=lambda _: False)
        expected = copy.goes_on()

    assert sorted(copy.rows.values()) == expected


@every_mysql
def test_a_table_that_was_emptied_meanwhile_goes_on_with_what_it_holds_now(filled: MySQLDatabase) -> None:
    with closing(source_of(filled)) as source:
        copy = InterruptedCopy.begun(filled, source, done=(0, 1))
        run(filled, "UPDATE t SET n = 1", "TRUNCATE TABLE t", "INSERT INTO t VALUES (10, 'new', 1), (20000, 'new', 2)")
        expected = copy.goes_on()

    assert sorted(copy.rows.values()) == expected == [(10, "new", 1), (20000, "new", 2)]


KEYS: Final[Mapping[str, tuple[str, Sequence[str]]]] = {
    "bigint unsigned": ("k bigint unsigned", ["0", "1", "18446744073709551615", "9223372036854775808"]),
    "tinyint": ("k tinyint", ["-128", "-1", "0", "127"]),
    "decimal": ("k decimal(40,12)", ["0.1", "-0.100000000001", "1234567890123456789012345678.000000000001", "5"]),
    "bit": ("k bit(60)", ["b'0'", "b'101'", "1152921504606846975", "7"]),
    "year": ("k year", ["1901", "2155", "0", "2024"]),
    "date": ("k date", ["'0001-01-01'", "'2024-02-29'", "'9999-12-31'", "'1969-12-31'"]),
    "datetime": (
        "k datetime(6)",
        ["'0001-01-01'", "'2024-02-29 12:00:00.000001'", "'1969-12-31 23:59:59.5'", "'2024-01-01'"],
    ),
    "timestamp": (
        "k timestamp(3)",
        ["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07.999'", "'2024-03-31 01:30:00.5'", "'2001-01-01'"],
    ),
    "time": ("k time(3)", ["'-838:59:59'", "'00:00:00.001'", "'-00:00:00.001'", "'838:59:59'"]),
    "binary": ("k binary(4)", ["''", "x'00010000'", "'\\\\'''", "x'ffffffff'"]),
    "varbinary": ("k varbinary(9)", ["''", "x'00'", "x'0000'", "'\\\\'''"]),
    "char": ("k char(9) COLLATE utf8mb4_bin", ["''", "'a'", "'A'", "'\\\\''é😀'"]),
    "varchar": ("k varchar(9) COLLATE utf8mb4_unicode_ci", ["''", "'Straße'", "'É'", "'\\\\''%\\n'"]),
    "latin1": ("k varchar(9) CHARACTER SET latin1", ["x'81'", "x'e4'", "x'80'", "'\\\\''x'"]),
    "utf8mb3": ("k varchar(9) CHARACTER SET utf8mb3", ["'ä'", "'日本'", "'ß'", "'x '"]),
    "enum": ("k enum('a','b''c','')", ["'a'", "'b''c'", "''", "2 + 0"][:3]),
    "several": (
        "k varchar(9), l int, m datetime(2)",
        ["'a', 1, '2024-01-01'", "'a', 2, '2024-01-01'", "'b', 1, '2024-01-01 00:00:00.01'", "'B', -1, '1999-01-01'"],
    ),
}
MARIADB_KEYS: Final[Mapping[str, tuple[str, Sequence[str]]]] = {
    "uuid": ("k uuid", ["'00000000-0000-0000-0000-000000000000'", "'123e4567-e89b-12d3-a456-426655440000'", "uuid()"]),
    "inet6": ("k inet6", ["'::'", "'2001:db8::1'", "'::ffff:192.0.2.1'"]),
}


@every_mysql
def test_rows_are_found_by_keys_of_every_type(mysql_source: MySQLDatabase) -> None:
    mariadb = mysql_source.server.release.is_mariadb
    kinds = {**KEYS, **(MARIADB_KEYS if mariadb else {})}
    names = {f"t{number}": name for number, name in enumerate(kinds)}
    statements = ["SET time_zone = '+00:00', sql_mode = ''"]
    for created, name in names.items():
        columns, values = kinds[name]
        key = ", ".join(column.split()[0] for column in columns.split(", ") if column[1:2] == " ")
        statements += [f"CREATE TABLE {created} ({columns}, v int, PRIMARY KEY ({key}))"]
        statements += [f"INSERT INTO {created} VALUES ({value}, 0)" for value in values]
    run(mysql_source, *statements)
    found = {}
    with closing(source_of(mysql_source)) as source:
        tables = {table.name: table for table in source.tables()}
        with closing(source.snapshot()) as first:
            copies = {
                table.id: Copied(first.position, False, "", frozenset(c.name for c in first.chunks(table, None)))
                for table in tables.values()
            }
            copies = {t.id: replace(copies[t.id], snapshot=first.note(t)) for t in tables.values()}
        run(mysql_source, *(f"UPDATE {name} SET v = 1" for name in names))
        with capture_logs() as logs, closing(source.snapshot(copies)) as second:
            for name, table in tables.items():
                chunks = second.chunks(table, copies[table.id])
                rows = [b for chunk in chunks for b in second.read(chunk)["arrow"]()]
                found[names[name]] = (
                    [chunk.name.partition(" ")[0] for chunk in chunks],
                    [value for batch in rows for value in batch["v"].to_pylist()],
                )
                keys = pa.Table.from_batches(second.keys(table)["arrow"]())
                (condition,) = [condition for condition, _ in Reread(table, keys.slice(0, 2), "TRUE").lookups()]
                plan = mysql_source.execute(
                    f"EXPLAIN FORMAT=TRADITIONAL SELECT * FROM {quoted_table(table.id)}{condition}".replace("%", "%%")
                )
                types = plan[0][3 if mariadb else 4]
                assert types in ("range", "const"), (names[name], plan)

    assert found == {name: (["changes"], [1] * len(values)) for name, (_, values) in kinds.items()}
    # The log is read once for all of them.
    assert [entry["event"] for entry in logs].count("reading what has changed since a copy was interrupted") == 1


@every_mysql
def test_a_key_that_its_collation_takes_for_another_is_read_once(
    mysql_source: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reread, "CONDITION_ROWS", 1)
    run(mysql_source, "CREATE TABLE t (id varchar(9) COLLATE utf8mb4_unicode_ci PRIMARY KEY, v int)")
    run(mysql_source, *(f"INSERT INTO t VALUES ('{i}x', {i})" for i in range(5)))
    with closing(source_of(mysql_source)) as source:
        copy = InterruptedCopy.begun(mysql_source, source)
        run(
            mysql_source,
            "UPDATE t SET id = '1X' WHERE v = 1",
            "DELETE FROM t WHERE v = 2",
            "INSERT INTO t VALUES ('2X', 7)",
        )
        expected = copy.goes_on()

    assert copy.changed() == [("1X",), ("2X",)]
    assert sorted(copy.rows.values()) == expected


def begins_anew(copy: InterruptedCopy) -> str:
    """Let a copy go on, which must begin anew and be complete; return the reason that is logged."""
    with capture_logs() as logs:
        expected = copy.goes_on()
    assert sorted(copy.rows.values()) == expected
    assert copy.copied.chunks == copy.read.keys()
    assert noted_position(copy.copied.snapshot) == (copy.copied.position if copy.table.key else None)
    (entry,) = [entry for entry in logs if entry["event"] == "an interrupted copy begins anew"]
    return str(entry["because"])


DDL: Final = {
    "a statement that is not carried out": ("ALTER TABLE t MODIFY n bigint", "columns have changed"),
    "a nullable column": ("ALTER TABLE t ADD COLUMN o int NULL", "columns have changed"),
    "a column that came and went": ("ALTER TABLE t DROP COLUMN n; ALTER TABLE t ADD COLUMN n int", "cannot be read"),
}


@pytest.mark.parametrize("change", list(DDL))
def test_a_copy_begins_anew_after(filled: MySQLDatabase, change: str) -> None:
    statements, reason = DDL[change]
    with closing(source_of(filled)) as source:
        copy = InterruptedCopy.begun(filled, source, done=(0, 1))
        run(filled, *statements.split("; "))
        (copy.table,) = source.tables()
        because = begins_anew(copy)

    assert reason in because


@every_mysql
def test_only_tables_whose_changes_cannot_be_read_begin_anew(mysql_source: MySQLDatabase) -> None:
    names = [f"t{number}" for number in range(5)]
    run(mysql_source, *(f"CREATE TABLE {name} (id int PRIMARY KEY, n int)" for name in names))
    run(mysql_source, *(f"INSERT INTO {name} VALUES (1, 1), (2, 1)" for name in names))
    with closing(source_of(mysql_source)) as source:
        tables = source.tables()
        with closing(source.snapshot()) as first:
            copies = {
                table.id: Copied(first.position, chunks=frozenset(chunk.name for chunk in first.chunks(table, None)))
                for table in tables
            }
            copies = {table.id: replace(copies[table.id], snapshot=first.note(table)) for table in tables}
        run(mysql_source, "ALTER TABLE t1 DROP COLUMN n", "ALTER TABLE t1 ADD COLUMN n int")
        run(
            mysql_source, "ALTER TABLE t2 MODIFY n bigint", *(f"UPDATE {name} SET n = 2 WHERE id = 2" for name in names)
        )

        with capture_logs() as logs, closing(source.snapshot(copies)) as second:
            found = {
                table.name: [chunk.name.partition(" ")[0] for chunk in second.chunks(table, copies[table.id])]
                for table in source.tables()
            }

    reasons = {str(log["table"]).partition(".")[2]: log["because"] for log in logs if "because" in log}
    assert found == {name: ["part" if name in ("t1", "t2") else "changes"] for name in names}
    assert reasons.keys() == {"t1", "t2"}
    assert "t1: the source ran ALTER TABLE" in reasons["t1"]
    assert "columns have changed" in reasons["t2"]


def test_a_copy_begins_anew_where_the_log_is_gone(filled: MySQLDatabase) -> None:
    with closing(source_of(filled)) as source:
        copy = InterruptedCopy.begun(filled, source, done=(0, 1))
        note: dict[str, Any] = json.loads(copy.copied.snapshot)
        server, rest = note["position"].split("/")[1], note["position"].split("/")[3:]
        note["position"] = "/".join(["mysql", server, "", "gone.000001:4", *rest[1:]])
        copy.copied = replace(copy.copied, snapshot=json.dumps(note))
        view = FirstView.parse(copy.copied.snapshot, copy.table)
        assert view is not None
        copy.copied = replace(copy.copied, chunks=frozenset(map(view.part, (0, 1))))
        because = begins_anew(copy)

    assert "gone.000001" in because


def test_a_copy_begins_anew_where_too_much_has_changed(filled: MySQLDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changed_keys, "MOST_KEYS", 100)
    with closing(source_of(filled)) as source:
        copy = InterruptedCopy.begun(filled, source, done=(0, 1))
        run(filled, "UPDATE t SET n = 1 WHERE id < 5000")
        because = begins_anew(copy)

    assert "more than 100 of its rows" in because


def test_a_copy_begins_anew_where_keys_take_too_much_memory(
    filled: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changed_keys, "MOST_BYTES", 100)
    with closing(source_of(filled)) as source:
        copy = InterruptedCopy.begun(filled, source, done=(0, 1))
        run(filled, "UPDATE t SET n = 1 WHERE id < 5000")
        because = begins_anew(copy)

    assert "MiB" in because


@pytest.mark.parametrize("key", ["PRIMARY KEY (f)", "INDEX (f)"])
def test_a_copy_begins_anew_where_rows_cannot_be_told_by_their_keys(mysql_source: MySQLDatabase, key: str) -> None:
    run(mysql_source, f"CREATE TABLE t (f double, v int, {key})", "INSERT INTO t VALUES (0.1, 1), (0.2, 2)")
    with closing(source_of(mysql_source)) as source:
        copy = InterruptedCopy.begun(mysql_source, source)
        run(mysql_source, "UPDATE t SET v = 3")
        because = begins_anew(copy)

    assert not has_exact_keys(copy.table)
    assert "key" in because


@pytest.mark.parametrize("note", ["", "xmin 5", "[]", '{"position": 1}', "SQL", "NAMES"])
def test_a_note_that_is_not_ours_is_not_believed(filled: MySQLDatabase, note: str) -> None:
    with closing(source_of(filled)) as source:
        copy = InterruptedCopy.begun(filled, source, done=(0,))
        changed: dict[str, Any] = json.loads(copy.copied.snapshot)
        if note == "SQL":
            changed["bounds"][0] = ["0 OR (SELECT 1)"]
        if note == "NAMES":
            changed["key"] = ["`n`"]
        copy.copied = replace(copy.copied, snapshot=json.dumps(changed) if note.isupper() else note)
        because = begins_anew(copy)

    assert "another version" in because


def test_looking_up_what_changed_ends_when_the_source_is_stopped(filled: MySQLDatabase) -> None:
    with closing(source_of(filled)) as source:
        copy = InterruptedCopy.begun(filled, source, done=(0, 1))
        run(filled, "UPDATE t SET n = 1")
        source.stop()
        with pytest.raises(TransientError, match="stopped while reading"):
            copy.goes_on()


def test_values_of_keys_stand_in_no_name_of_a_chunk_and_no_log_line(mysql_source: MySQLDatabase) -> None:
    run(
        mysql_source,
        "CREATE TABLE t (id varchar(40) COLLATE utf8mb4_bin PRIMARY KEY, v varchar(3000))",
        "INSERT INTO t WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 1000) "
        "SELECT concat('confidential', lpad(i * 9, 6, '0')), repeat('v', 3000) FROM s",
        "ANALYZE TABLE t",
    )
    names: list[str] = []

    def seen(chunk: Chunk) -> bool:
        names.append(chunk.name)
        return True

    with capture_logs() as logs, closing(source_of(mysql_source)) as source:
        copy = InterruptedCopy.begun(mysql_source, source, done=(0, 1))
        run(mysql_source, "UPDATE t SET v = 'new'")
        copy.goes_on(only=seen)

    assert "confidential" in copy.copied.snapshot
    assert any(name.startswith("changes") for name in names)
    assert "confidential" not in f"{names} {logs} {[*copy.copied.chunks]}"
