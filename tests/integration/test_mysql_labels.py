"""Labels of ENUM and SET with characters that the catalogue escapes are read as they are, whoever names them."""

from __future__ import annotations

from contextlib import closing

import pytest

from cdcrep.errors import DataError
from tests.integration.mysql_following import here, read, run, source_of
from tests.servers.fix_mysql import every_mysql
from tests.servers.mysql_database import MySQLDatabase

ROWS = [(1, "b\\c", "x\\y,z"), (2, "q'r", "z"), (3, "n\nl", ""), (4, "d\\", "e'\\n")]


@every_mysql
@pytest.mark.parametrize("named_by", ["log", "catalogue"])
def test_labels_with_quotes_backslashes_and_newlines_are_exact(mysql_source: MySQLDatabase, named_by: str) -> None:
    run(
        mysql_source,
        r"CREATE TABLE t (id int PRIMARY KEY, e ENUM('a','b\\c','q''r','n\nl','d\\'), s SET('x\\y','z','e\'\\n'))",
    )
    after, copied = here(mysql_source)
    try:
        if named_by == "catalogue":
            run(mysql_source, "SET GLOBAL binlog_row_metadata = MINIMAL")
        for row in ROWS:
            mysql_source.execute("INSERT INTO t VALUES (%s, %s, %s)", *row)
    finally:
        run(mysql_source, "SET GLOBAL binlog_row_metadata = FULL")

    batches = read(mysql_source, after, copied)
    with closing(source_of(mysql_source)) as source, closing(source.snapshot()) as snapshot:
        (table,) = source.tables()
        (chunk,) = snapshot.chunks(table, None)
        copy = [row for part in snapshot.read(chunk)["arrow"]() for row in part.to_pylist()]

    streamed = [row for batch in batches for changes in batch.changes for row in changes.new.to_pylist()]
    assert [tuple(row.values()) for row in streamed] == ROWS
    assert [tuple(row.values()) for row in copy] == ROWS


@every_mysql
def test_labels_that_no_catalogue_shows_are_exact_if_the_log_names_them(mysql_source: MySQLDatabase) -> None:
    labels = "('😀','?','😁') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    with mysql_source.connect(charset="utf8mb4") as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE t (id int PRIMARY KEY, e ENUM{labels}, s SET('😀','x') CHARACTER SET utf16)")
    after, copied = here(mysql_source)
    mysql_source.execute("INSERT INTO t VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3)")
    (streamed,) = (changes for batch in read(mysql_source, after, copied) for changes in batch.changes)
    unnamed, _ = here(mysql_source)
    try:
        run(mysql_source, "SET GLOBAL binlog_row_metadata = MINIMAL")
        mysql_source.execute("INSERT INTO t VALUES (4, 1, 1)")
    finally:
        run(mysql_source, "SET GLOBAL binlog_row_metadata = FULL")

    with pytest.raises(DataError, match="column 'e'") as refused:
        read(mysql_source, unnamed, copied)

    assert "binlog_row_metadata = FULL" in (refused.value.hint or "")
    with closing(source_of(mysql_source)) as source:
        assert [streamed.table] == source.tables()
    assert streamed.new.column("e").to_pylist() == ["😀", "?", "😁"]
    assert streamed.new.column("s").to_pylist() == ["😀", "x", "😀,x"]
