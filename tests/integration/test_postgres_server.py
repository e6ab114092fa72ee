"""Throw-away PostgreSQL servers start, crash, recover and disappear."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from cdcrep.demo.postgres_server import PostgresServer, find_binaries
from cdcrep.errors import SetupError
from tests.servers.database import Database
from tests.servers.fault_proxy import FaultProxy
from tests.servers.fix_postgres import StartServer, every_major


@every_major
def test_every_major_version_runs_with_logical_decoding(source_database: Database, postgres_major: int) -> None:
    version = int(source_database.execute("SHOW server_version_num")[0][0])

    assert version // 10000 == postgres_major
    assert source_database.execute("SHOW wal_level") == [("logical",)]


def test_an_immediate_restart_keeps_port_and_committed_rows(own_postgres_server: StartServer) -> None:
    server = own_postgres_server()
    with psycopg.connect(server.dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    first_pid, port = server.pid, server.port

    server.restart("immediate")

    assert server.port == port
    assert server.pid not in (None, first_pid)
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]
    assert "automatic recovery in progress" in server.log_text()


def test_a_server_with_a_password_refuses_a_wrong_one(own_postgres_server: StartServer) -> None:
    server = own_postgres_server(password="right/@:")

    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.dsn, password="wrong")


def test_removing_a_server_leaves_neither_process_nor_files() -> None:
    with PostgresServer(find_binaries(), settings={"fsync": "off"}) as server:
        directory = server.data_directory
        assert directory.exists()

    assert server.pid is None
    assert not directory.exists()


def test_a_setting_that_the_server_refuses_ends_with_its_log() -> None:
    server = PostgresServer(find_binaries(), settings={"wal_level": "nonsense"})
    try:
        with pytest.raises(SetupError, match='invalid value for parameter "wal_level"'):
            server.start()
    finally:
        server.remove()


def test_two_servers_have_different_system_identifiers(own_postgres_server: StartServer) -> None:
    identifiers = set()
    for server in (own_postgres_server(), own_postgres_server()):
        with psycopg.connect(server.dsn) as connection:
            identifiers.add(connection.execute("SELECT system_identifier FROM pg_control_system()").fetchone())

    assert len(identifiers) == 2


def test_binaries_of_an_unknown_version_are_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no binaries of PostgreSQL 7") as refusal:
        find_binaries(7)

    assert "PG_BIN_DIR" in str(refusal.value.hint)


def test_a_database_is_dropped_with_its_slots_roles_and_sessions(source_database: Database) -> None:
    doomed = Database.create(source_database.server)
    role = doomed.create_role()
    doomed.execute("SELECT pg_create_logical_replication_slot('left_over_' || current_database(), 'pgoutput')")
    session = doomed.connect(user=role)

    doomed.drop()

    assert source_database.execute("SELECT 1 FROM pg_database WHERE datname = %s", doomed.name) == []
    assert source_database.execute("SELECT 1 FROM pg_replication_slots WHERE database = %s", doomed.name) == []
    assert source_database.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", role) == []
    session.close()


def test_a_dropped_reply_to_commit_leaves_the_commit_done(
    source_database: Database, fault_proxy: Callable[[str], FaultProxy]
) -> None:
    source_database.execute("CREATE TABLE paid (amount int)")
    proxy = fault_proxy(source_database.url)
    connection = psycopg.connect(proxy.url(source_database.url))
    connection.execute("INSERT INTO paid VALUES (7)")
    proxy.drop_reply_to(b"COMMIT")

    with pytest.raises(psycopg.OperationalError):
        connection.commit()

    assert source_database.execute("SELECT amount FROM paid") == [(7,)]
    connection.close()
