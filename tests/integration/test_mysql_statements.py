"""Statements in the log of MySQL and MariaDB pass, are carried out, or stop, whatever they reach a table through."""

from __future__ import annotations

import pytest

from cdcrep.errors import DataError
from tests.integration.mysql_following import here, ids, read, run
from tests.servers.fix_mysql import every_mysql
from tests.servers.mysql_database import MySQLDatabase

STATEMENTS = "SET SESSION binlog_format = STATEMENT"


@every_mysql
def test_statements_that_change_other_tables_pass(mysql_source: MySQLDatabase) -> None:
    run(mysql_source, "CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE other (id int PRIMARY KEY)")
    run(mysql_source, "CREATE VIEW others AS SELECT * FROM other")
    run(mysql_source, "CREATE PROCEDURE fill_other() INSERT INTO other VALUES (5)")
    after, copied = here(mysql_source, "t")
    path = mysql_source.execute("SELECT @@datadir")[0][0] + "binlog.index"

    run(
        mysql_source,
        STATEMENTS,
        "INSERT INTO other VALUES (1)",
        "INSERT INTO others VALUES (2)",
        "CALL fill_other()",
        f"LOAD DATA INFILE '{path}' IGNORE INTO TABLE other FIELDS TERMINATED BY '.' (@name, @id) SET id = @id + 10",
    )
    run(mysql_source, "INSERT INTO t VALUES (7)")

    assert ids(read(mysql_source, after, copied, "t")) == [7]


@every_mysql
def test_statements_that_reach_a_table_stop(mysql_source: MySQLDatabase) -> None:
    # MariaDB does not log what foreign keys change, and such a table is refused before.
    cascades = not mysql_source.server.release.is_mariadb
    child = ", p int, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE" * cascades
    run(
        mysql_source,
        "CREATE TABLE parent (id int PRIMARY KEY)",
        f"CREATE TABLE t (id int PRIMARY KEY{child})",
        "INSERT INTO t (id) VALUES (1)",
        "CREATE TABLE other (id int)",
        "CREATE TABLE plain (id int)",
        "CREATE VIEW every_t AS SELECT * FROM t",
        "CREATE TRIGGER after_other AFTER INSERT ON other FOR EACH ROW INSERT INTO t (id) VALUES (NEW.id)",
        "CREATE PROCEDURE fill_t() INSERT INTO t (id) VALUES (9)",
        "CREATE FUNCTION add_t(n int) RETURNS int DETERMINISTIC MODIFIES SQL DATA "
        "BEGIN INSERT INTO t (id) VALUES (n); RETURN n; END",
    )
    path = mysql_source.execute("SELECT @@datadir")[0][0] + "binlog.index"
    statements = [
        "UPDATE every_t SET id = 2",
        "INSERT INTO other VALUES (3)",
        "INSERT INTO plain VALUES (add_t(4))",
        "SELECT add_t(5)",
        "SET @added = add_t(6)",
        "CALL fill_t()",
        f"LOAD DATA INFILE '{path}' IGNORE INTO TABLE t FIELDS TERMINATED BY '.' (@name, @id) SET id = @id + 10",
        *["INSERT INTO parent VALUES (1)"] * cascades,
    ]

    for statement in statements:
        after, copied = here(mysql_source, "t")
        run(mysql_source, STATEMENTS, statement)
        with pytest.raises(DataError, match="as its statement") as raised:
            read(mysql_source, after, copied, "t")
        assert "binlog_format = ROW" in str(raised.value.hint), statement


@every_mysql
def test_what_a_savepoint_undid_does_not_come(mysql_source: MySQLDatabase) -> None:
    run(mysql_source, "CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE kept (id int) ENGINE = MyISAM")
    after, copied = here(mysql_source, "t")

    # MariaDB then logs the rows and ROLLBACK TO; MySQL with GTIDs refuses the table without transactions here.
    without_transactions = ["INSERT INTO kept VALUES (1)"] * mysql_source.server.release.is_mariadb
    run(
        mysql_source,
        "BEGIN",
        "INSERT INTO t VALUES (1)",
        "SAVEPOINT `a point`",
        "INSERT INTO t VALUES (2)",
        *without_transactions,
        "SAVEPOINT later",
        "INSERT INTO t VALUES (3)",
        "ROLLBACK TO `A Point`",
        "INSERT INTO t VALUES (4)",
        "COMMIT",
    )

    assert ids(read(mysql_source, after, copied, "t")) == [1, 4]


def test_rows_that_foreign_keys_change_come_from_mysql(mysql_source: MySQLDatabase) -> None:
    run(
        mysql_source,
        "CREATE TABLE parent (id int PRIMARY KEY)",
        "CREATE TABLE t (id int PRIMARY KEY, p int, "
        "FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE CASCADE)",
        "INSERT INTO parent VALUES (1), (2)",
        "INSERT INTO t VALUES (10, 1), (20, 2)",
    )
    after, copied = here(mysql_source, "t")

    run(mysql_source, "UPDATE parent SET id = 3 WHERE id = 1", "DELETE FROM parent WHERE id = 2")

    found = [
        (chr(operation), p)
        for batch in read(mysql_source, after, copied, "t")
        for changes in batch.changes
        for operation, p in zip(changes.operations.tolist(), changes.new.column("p").to_pylist(), strict=True)
    ]
    assert found == [("U", 3), ("D", None)]
