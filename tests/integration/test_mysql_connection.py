"""Sessions at real MySQL and MariaDB servers: what is pinned, what is verified, what is refused."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cdcrep.errors import ConfigError, SetupError, TransientError
from cdcrep_connectors.mysql.connection import Connection, connect, is_mariadb
from cdcrep_connectors.mysql.failures import DRIVER_ERRORS, translate
from cdcrep_connectors.mysql.options import ServerOptions
from tests.servers.fault_proxy import FaultProxy
from tests.servers.fix_mysql import StartMySQL, every_mysql
from tests.servers.mysql_database import MySQLDatabase
from tests.servers.waiting import DEADLINE_SECONDS

HOSTILE = {
    "sql_mode": "'ANSI_QUOTES,PAD_CHAR_TO_FULL_LENGTH,NO_ZERO_DATE'",
    "time_zone": "'+05:30'",
    "sql_select_limit": "1",
    "lock_wait_timeout": "999",
    "innodb_lock_wait_timeout": "999",
    "completion_type": "1",
}


def answer(connection: Connection, query: str) -> list[object]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        assert row is not None
        return list(row)


def encrypted(connection: Connection) -> bool:
    return bool(answer(connection, "SHOW SESSION STATUS LIKE 'Ssl_cipher'")[1])


@every_mysql
def test_a_session_does_not_depend_on_the_servers_settings(own_mysql_server: StartMySQL, mysql_release: str) -> None:
    server = own_mysql_server(mysql_release)
    with server.connect() as administrator, administrator.cursor() as cursor:
        for name, value in HOSTILE.items():
            cursor.execute(f"SET GLOBAL {name} = {value}")

    with closing(connect(ServerOptions(url=server.url), lock_timeout=3.0)) as connection:
        mode, zone, rows, *locks = answer(
            connection,
            "SELECT @@sql_mode, @@time_zone, @@sql_select_limit, @@lock_wait_timeout, @@innodb_lock_wait_timeout, "
            "@@completion_type, @@character_set_client, @@character_set_results, @@collation_connection",
        )
        isolation = answer(connection, f"SELECT @@{'tx' if is_mariadb(connection) else 'transaction'}_isolation")

    assert set(str(mode).split(",")) == {
        "STRICT_ALL_TABLES",
        "NO_ENGINE_SUBSTITUTION",
        "NO_AUTO_VALUE_ON_ZERO",
        "ERROR_FOR_DIVISION_BY_ZERO",
    }
    assert (zone, rows) == ("+00:00", 2**64 - 1)
    assert locks == [3, 3, "NO_CHAIN", "utf8mb4", "utf8mb4", "utf8mb4_bin"]
    assert isolation == ["REPEATABLE-READ"]


@every_mysql
def test_settings_of_the_caller_win(mysql_source: MySQLDatabase) -> None:
    with closing(connect(ServerOptions(url=mysql_source.url), settings={"sql_mode": "''"})) as connection:
        assert answer(connection, "SELECT @@sql_mode, database()") == ["", mysql_source.name]


@every_mysql
def test_a_password_in_any_alphabet_opens_a_session(mysql_source: MySQLDatabase, tmp_path: Path) -> None:
    password = "pä%w'd@:/?x ключ"
    user = mysql_source.create_user(password=password)
    file = tmp_path / "password"
    file.write_text(password + "\n")
    file.chmod(0o600)

    for options in (
        ServerOptions(url=mysql_source.url_as(user, password)),
        ServerOptions(url=mysql_source.server.url(mysql_source.name, user), password_file=file),
    ):
        with closing(connect(options)) as connection:
            assert answer(connection, "SELECT user()")[0] == f"{user}@127.0.0.1"


@every_mysql
def test_a_wrong_password_is_a_matter_of_setup_and_is_not_shown(mysql_source: MySQLDatabase) -> None:
    user = mysql_source.create_user()

    with pytest.raises(SetupError, match="Access denied") as refusal:
        connect(ServerOptions(url=mysql_source.url_as(user, "canary")))

    assert "password" in str(refusal.value.hint)
    assert "canary" not in f"{refusal.value}{refusal.value.__cause__}"


def test_two_passwords_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both"):
        connect(ServerOptions(url="mysql://u:p@127.0.0.1/d", password_file=tmp_path / "password"))


@every_mysql
def test_a_statement_that_takes_too_long_is_given_up(mysql_source: MySQLDatabase) -> None:
    # Not SLEEP, which MySQL interrupts without an error.
    numbers = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900)"
    with closing(connect(ServerOptions(url=mysql_source.url), statement_timeout=0.5)) as connection:
        with pytest.raises(DRIVER_ERRORS) as given_up:
            answer(connection, f"{numbers} SELECT count(*) FROM n a, n b, n c, n d")

        assert type(translate(given_up.value, "reading")) is TransientError
        assert answer(connection, "SELECT 1") == [1]


@every_mysql
def test_a_unix_socket_is_used(own_mysql_server: StartMySQL, mysql_release: str) -> None:
    server = own_mysql_server(mysql_release)

    with closing(connect(ServerOptions(url=f"mysql://root@localhost?socket={server.socket_path}"))) as connection:
        assert answer(connection, "SELECT user()") == ["root@localhost"]


def test_nobody_at_the_port_is_transient_and_an_unknown_host_is_not() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(TransientError, match=r"127\.0\.0\.1:\d+ as u"):
            connect(ServerOptions(url=f"mysql://u@127.0.0.1:{probe.getsockname()[1]}/d"))
    with pytest.raises(SetupError, match="connecting to"):
        connect(ServerOptions(url="mysql://u@does-not-exist.invalid/d", insecure=True))


def test_a_broken_connection_is_transient(
    mysql_source: MySQLDatabase, fault_proxy: Callable[[str], FaultProxy]
) -> None:
    proxy = fault_proxy(mysql_source.url)
    with closing(connect(ServerOptions(url=proxy.url(mysql_source.url)))) as connection:
        proxy.cut()
        with pytest.raises(DRIVER_ERRORS) as broken:
            answer(connection, "SELECT 1")

    assert type(translate(broken.value, "asking")) is TransientError


@contextmanager
def pretended_server(*packets: bytes, greeting_flags: int = 0) -> Iterator[tuple[int, list[bytes]]]:
    """Answer one client with a greeting and then a packet for each of its own; keep what it sent."""
    version, plugin = b"8.0.0-pretended", b"mysql_native_password"
    flags = 0x8000 | 0x80000 | 0x200 | 0x1 | 0x20000 | greeting_flags  # plugins, 4.1 protocol, MULTI_RESULTS
    greeting = b"\x0a" + version + b"\0" + struct.pack("<I", 1) + b"12345678\0" + struct.pack("<H", flags & 0xFFFF)
    greeting += struct.pack("<BHHB", 45, 2, flags >> 16, 21) + bytes(10) + b"123456789012\0" + plugin + b"\0"
    received: list[bytes] = []

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.sendall(struct.pack("<I", len(greeting)) + greeting)
            for packet in packets:
                head = client.recv(4, socket.MSG_WAITALL)
                if len(head) < 4:
                    return
                received.append(client.recv(int.from_bytes(head[:3], "little"), socket.MSG_WAITALL))
                client.sendall(struct.pack("<I", len(packet) | (head[3] + 1 & 0xFF) << 24) + packet)
            received.append(client.recv(1 << 16))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], received
        finally:
            thread.join(DEADLINE_SECONDS)


OK = b"\0\0\0\2\0\0\0"


def test_a_server_that_asks_for_a_local_file_gets_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary")

    # Logged in, then SET NAMES; the settings are answered with the request for a file.
    with (
        pretended_server(OK, OK, OK, b"\xfb" + str(secret).encode()) as (port, received),
        pytest.raises(SetupError, match="file of this machine") as refusal,
    ):
        connect(ServerOptions(url=f"mysql://u@127.0.0.1:{port}/d"))

    assert "do not connect" in str(refusal.value.hint)
    assert b"canary" not in b"".join(received)


def test_a_server_that_asks_for_the_password_in_clear_text_does_not_get_it() -> None:
    with (
        pretended_server(b"\xfemysql_clear_password\0") as (port, received),
        pytest.raises(SetupError, match="clear text"),
    ):
        connect(ServerOptions(url=f"mysql://u:canary@127.0.0.1:{port}/d"))

    assert b"canary" not in b"".join(received)


@pytest.mark.parametrize("mode", ["REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"])
def test_nothing_is_sent_to_a_server_without_tls_where_it_is_required(mode: str) -> None:
    with pretended_server(OK) as (port, received), pytest.raises(SetupError, match="SSL"):
        connect(ServerOptions(url=f"mysql://canary:canary@127.0.0.1:{port}/d?ssl-mode={mode}"))

    assert b"canary" not in b"".join(received)


def test_tls_verifies_certificate_and_host_name(own_mysql_server: StartMySQL, tls_certificate: Path) -> None:
    server = own_mysql_server(
        "mysql-9.7", ssl_cert=str(tls_certificate / "tls.crt"), ssl_key=str(tls_certificate / "tls.key")
    )
    right = f"mysql://root@localhost:{server.port}?ssl-ca={tls_certificate / 'tls.crt'}"

    with server.connect() as administrator, administrator.cursor() as cursor:
        cursor.execute("CREATE USER distant@'%' IDENTIFIED BY 'secret'")
    with closing(connect(ServerOptions(url=right))) as connection:
        assert encrypted(connection)
    with pytest.raises(SetupError, match="certificate") as wrong_name:
        connect(ServerOptions(url=right.replace("localhost", "127.0.0.1")))
    with pytest.raises(SetupError, match="certificate"):
        connect(ServerOptions(url=f"mysql://root@localhost:{server.port}?ssl-mode=VERIFY_IDENTITY"))
    with closing(connect(ServerOptions(url=right.replace("localhost", "127.0.0.1") + "&ssl-mode=VERIFY_CA"))) as other:
        assert encrypted(other)

    assert "ssl-ca" in str(wrong_name.value.hint)


@every_mysql
def test_this_machine_is_spoken_to_in_plain_text_unless_the_url_says_otherwise(mysql_source: MySQLDatabase) -> None:
    with closing(connect(ServerOptions(url=mysql_source.url))) as connection:
        assert not encrypted(connection)
    if "10.11" not in mysql_source.server.release.name:  # has no certificate of its own
        with closing(connect(ServerOptions(url=f"{mysql_source.url}?ssl-mode=REQUIRED"))) as connection:
            assert encrypted(connection)
