"""Throw-away MySQL and MariaDB servers start, log changes by row, crash, recover and disappear."""

from __future__ import annotations

import os
from pathlib import Path

import pymysql
import pytest

from tests.servers.fix_mysql import StartMySQL, every_mysql
from tests.servers.mysql_binaries import RELEASES, NoServerError, find_binaries
from tests.servers.mysql_database import MySQLDatabase
from tests.servers.mysql_server import MySQLServer

LOGGING = ("log_bin", "binlog_format", "binlog_row_image", "binlog_row_metadata")


@every_mysql
def test_every_release_runs_and_logs_whole_rows_with_their_metadata(mysql_source: MySQLDatabase) -> None:
    release = mysql_source.server.release

    [(version, *logging)] = mysql_source.execute(f"SELECT version(), {', '.join('@@' + name for name in LOGGING)}")

    assert version.startswith(release.version)
    assert ("MariaDB" in version) == release.is_mariadb
    assert logging == [1, "ROW", "FULL", "FULL"]


@every_mysql
def test_every_transaction_gets_a_gtid(mysql_source: MySQLDatabase) -> None:
    variable = "@@gtid_binlog_pos" if mysql_source.server.release.is_mariadb else "@@gtid_executed"
    [(before,)] = mysql_source.execute(f"SELECT {variable}")

    mysql_source.execute("CREATE TABLE one AS SELECT 1 AS n")

    [(after,)] = mysql_source.execute(f"SELECT {variable}")
    assert after not in ("", before)


@every_mysql
def test_a_crashed_server_comes_back_with_its_commits_on_its_port(
    own_mysql_server: StartMySQL, mysql_release: str
) -> None:
    server = own_mysql_server(mysql_release)
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE kept")
        cursor.execute("CREATE TABLE kept.rows (n int PRIMARY KEY)")
        for number in range(100):
            cursor.execute("INSERT INTO kept.rows VALUES (%s)", [number])
    first_pid, port = server.pid, server.port

    server.restart(crash=True)

    assert server.port == port
    assert server.pid not in (None, first_pid)
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM kept.rows")
        assert cursor.fetchone() == (100,)
    assert "crash recovery" in server.log_text().lower()


def test_servers_of_one_release_have_their_own_settings_and_uuids(own_mysql_server: StartMySQL) -> None:
    servers = [
        own_mysql_server("mysql-9.7"),
        own_mysql_server("mysql-9.7", gtid_mode="OFF", enforce_gtid_consistency="OFF", binlog_row_image="MINIMAL"),
    ]
    answers = []
    for server in servers:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT @@gtid_mode, @@binlog_row_image, @@server_uuid")
            answers.append(cursor.fetchone())

    assert [answer[:2] for answer in answers] == [("ON", "FULL"), ("OFF", "MINIMAL")]
    assert answers[0][2] != answers[1][2]


def test_a_server_that_is_stopped_in_order_needs_no_recovery(own_mysql_server: StartMySQL) -> None:
    server = own_mysql_server("mariadb-11.8")

    server.restart()

    assert server.pid is not None
    assert "crash recovery" not in server.log_text().lower()


def test_leaving_a_server_leaves_neither_process_nor_files(own_mysql_server: StartMySQL, tmp_path: Path) -> None:
    running = own_mysql_server("mariadb-10.11")
    with MySQLServer(find_binaries(running.release)) as server:
        directory, pid = server.data_directory, server.pid
        assert directory.exists()

    assert server.pid is None
    assert not directory.exists()
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_setting_that_the_server_refuses_ends_with_its_log(own_mysql_server: StartMySQL) -> None:
    with pytest.raises(NoServerError, match="binlog_format"):
        own_mysql_server("mariadb-10.11", binlog_format="NONSENSE")


@every_mysql
def test_a_replication_user_may_follow_the_log_and_read_its_database_only(
    mysql_source: MySQLDatabase, mysql_release: str
) -> None:
    mysql_source.execute("CREATE TABLE one AS SELECT 1 AS n")
    user = mysql_source.create_user()

    with mysql_source.connect(user=user, password="secret") as connection, connection.cursor() as cursor:
        cursor.execute("SHOW BINARY LOGS")
        assert cursor.fetchall()
        cursor.execute("SELECT n FROM one")
        assert cursor.fetchall() == ((1,),)
        with pytest.raises(pymysql.Error, match="denied"):
            cursor.execute("CREATE TABLE two (n int)")


@every_mysql
def test_a_database_is_dropped_with_its_users_and_sessions(mysql_source: MySQLDatabase) -> None:
    doomed = MySQLDatabase.create(mysql_source.server)
    user = doomed.create_user()
    session = doomed.connect(user=user, password="secret")

    doomed.drop()

    assert mysql_source.execute("SHOW DATABASES LIKE %s", doomed.name) == []
    assert mysql_source.execute("SELECT user FROM mysql.user WHERE user = %s", user) == []
    with pytest.raises(pymysql.Error):
        session.ping(reconnect=False)
    session.close()


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a folder take the place of the root directory."""
    monkeypatch.setattr("tests.servers.mysql_binaries.UNPACKED", tmp_path / "unpacked")
    for module in ("tests.servers.mysql_binaries", "cdcrep.demo.mysql_programs"):
        monkeypatch.setattr(f"{module}.SYSTEM", tmp_path)
    return tmp_path


@pytest.mark.usefixtures("bare_machine")
def test_a_release_that_is_not_there_names_the_variable_that_helps() -> None:
    with pytest.raises(NoServerError, match=r"CDCREP_TEST_MARIADB_10_11=mysql://"):
        find_binaries(RELEASES["mariadb-10.11"])


@pytest.mark.parametrize("version", ["10.6.1", "10.110.0", "11.8.6"])
def test_a_system_program_of_another_version_is_not_taken(bare_machine: Path, version: str) -> None:
    program = bare_machine / "usr/sbin/mariadbd"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho 'mariadbd  Ver {version}-MariaDB for debian-linux-gnu on x86_64'\n")
    program.chmod(0o755)

    with pytest.raises(NoServerError):
        find_binaries(RELEASES["mariadb-10.11"])


def test_a_system_program_of_the_version_is_taken(bare_machine: Path) -> None:
    program = bare_machine / "usr/sbin/mariadbd"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 'mariadbd  Ver 10.11.19-MariaDB for debian-linux-gnu on x86_64'\n")
    program.chmod(0o755)

    assert find_binaries(RELEASES["mariadb-10.11"]).root == bare_machine
