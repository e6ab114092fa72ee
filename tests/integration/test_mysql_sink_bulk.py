"""Many rows at once into MySQL and MariaDB: the same values by LOAD DATA and by INSERT, and nothing left out or cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from cdcrep.connector import Chunk
from cdcrep.errors import DataError, SetupError
from cdcrep.table import ColumnType, Kind
from cdcrep.testing.contract_data import FIRST, INT, TEXT, arrow, batch, deleted, following, inserted, pipeline, table
from cdcrep.testing.memory_tables import Row, ordered
from cdcrep_connectors.mysql import session as session_module
from cdcrep_connectors.mysql.connection import connect
from cdcrep_connectors.mysql.load_local import load_local
from cdcrep_connectors.mysql.options import ServerOptions
from tests.contract.test_mysql_sink import MySQLTarget
from tests.integration.test_mysql_connection import OK, pretended_server
from tests.servers.fix_mysql import every_mysql_target
from tests.servers.mysql_database import MySQLDatabase

BYTES = ColumnType(Kind.BYTES, "bytea")
ITEMS = table("items", id=INT, note=TEXT, body=BYTES)
NOTES = (
    None,
    "",
    "\\N",
    "NULL",
    "a\tb",
    "a\nb\r\n",
    "back\\slash\\",
    "it's",
    '"quoted"',
    "\0\x1a",
    "é😀",
    " x ",
    "\\\t",
)
BODIES = (None, "\\x", "\\x00ff5c0a09275c4e", "\\x5c")
ROWS: list[Row] = [(str(i), NOTES[i % len(NOTES)], BODIES[i % len(BODIES)]) for i in range(300)]

either_family = pytest.mark.parametrize("mysql_target_release", ["mysql-9.7", "mariadb-11.8"], indirect=True)


@pytest.fixture
def target(mysql_target: MySQLDatabase) -> Iterator[MySQLTarget]:
    target = MySQLTarget(mysql_target)
    yield target
    target.clear()


def held(target: MySQLTarget) -> list[Row]:
    rows = target.database.execute("SELECT CAST(id AS CHAR), note, body FROM shop.items")
    return ordered([(key, note, None if body is None else f"\\x{body.hex()}") for key, note, body in rows])


@every_mysql_target
@pytest.mark.parametrize("from_rows", [100, 1_000_000], ids=["loaded", "inserted"])
def test_every_text_and_byte_string_arrives_as_it_is(
    target: MySQLTarget, monkeypatch: pytest.MonkeyPatch, from_rows: int
) -> None:
    monkeypatch.setattr(session_module, "LOADED_ROWS", from_rows)
    sink = following(target.sink(pipeline()), {ITEMS: ROWS[:150]})

    sink.apply(batch(1, *(inserted(ITEMS, *row) for row in ROWS[150:])))
    copied_and_streamed = held(target)
    sink.apply(batch(2, *(deleted(ITEMS, *row) for row in ROWS[10:])))
    sink.close()

    assert copied_and_streamed == ordered(ROWS)
    assert held(target) == ordered(ROWS[:10])


@either_family
def test_a_value_that_load_data_would_cut_is_refused_and_nothing_changes(target: MySQLTarget) -> None:
    words = table("words", ("word",), word=TEXT)
    sink = following(target.sink(pipeline()), {words: []})

    with pytest.raises(DataError, match=r"shop\.words \(key word\) before position contract/0001.*'word'"):
        sink.apply(batch(1, *(inserted(words, "x" * (700 + i)) for i in range(100))))
    sink.close()

    assert target.rows(words) == []
    assert sink.status()["position"] == FIRST


@either_family
def test_a_row_that_load_data_would_leave_out_is_refused_with_what_to_drop(target: MySQLTarget) -> None:
    sink = following(target.sink(pipeline()), {ITEMS: ROWS[:1]})
    target.execute("ALTER TABLE shop.items ADD UNIQUE notes (note(20))")

    with pytest.raises(DataError, match=r"shop\.items \(key id\)") as refused:
        sink.apply(batch(1, *(inserted(ITEMS, str(i), f"canary {i % 200}", None) for i in range(1, 300))))
    sink.close()

    assert "canary" not in refused.value.message
    assert (refused.value.hint or "").startswith("DROP INDEX `notes` ON `shop`.`items`;")
    assert held(target) == ordered(ROWS[:1])


@pytest.mark.parametrize("rows", [1, 100])
@pytest.mark.parametrize("mysql_target_release", ["mariadb-11.8"], indirect=True)
def test_a_row_larger_than_a_packet_is_refused_before_anything_is_lost(target: MySQLTarget, rows: int) -> None:
    sink = following(target.sink(pipeline()), {ITEMS: []})
    notes = pa.array(["small"] * (rows - 1) + ["x" * (17 << 20)])
    ids = pa.array([str(i) for i in range(rows)])
    chunk = pa.table({"id": ids, "note": notes, "body": pa.nulls(rows, pa.string())})
    loader = sink.loader()

    with pytest.raises(SetupError, match=r"shop\.items: a row of \d+ bytes .* \(max_allowed_packet\)"):
        loader.load(Chunk(ITEMS, "large"), {"arrow": chunk.to_batches})
    loader.close()

    loader = sink.loader()
    loader.load(Chunk(ITEMS, "small"), arrow(ITEMS, ROWS[:1]))
    loader.close()
    sink.close()
    assert held(target) == ordered(ROWS[:1])


def test_a_server_that_asks_for_a_file_in_the_place_of_our_rows_gets_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary")
    statement = b"LOAD DATA LOCAL INFILE 'cdcrep rows' INTO TABLE t"

    # Logged in, SET NAMES, autocommit and the settings; then what LOAD DATA is answered with.
    with pretended_server(OK, OK, OK, OK, b"\xfb" + str(secret).encode()) as (port, received):
        options = ServerOptions(url=f"mysql://u@127.0.0.1:{port}/d?ssl-mode=DISABLED")
        with (
            closing(connect(options, local_data=True)) as connection,
            pytest.raises(SetupError, match="file of this machine"),
        ):
            load_local(connection, statement, iter([memoryview(b"rows")]))

    sent = b"".join(received)
    assert b"canary" not in sent
    assert b"rows" not in sent.replace(statement, b"")
