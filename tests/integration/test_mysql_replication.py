"""What real servers send as a binary log: whole, by every way, in the face of breaks, silence and refusal."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cdcrep.errors import DivergedError, SetupError, TransientError
from cdcrep_connectors.mysql import reading, replication
from cdcrep_connectors.mysql.connection import connect
from cdcrep_connectors.mysql.options import ServerOptions
from cdcrep_connectors.mysql.reading import BinlogReader
from cdcrep_connectors.mysql.replication import (
    AfterGtidList,
    AfterGtids,
    AtFile,
    BinlogSocket,
    StartingPoint,
    dump_is_working,
    start_dump,
)
from tests.servers.fault_proxy import FaultProxy
from tests.servers.fix_mysql import StartMySQL, every_mysql
from tests.servers.mysql_database import MySQLDatabase, RunningMySQL
from tests.servers.waiting import wait_until

NOTHING = AfterGtids(bytes(8))
"""An empty GTID set."""

HEARTBEATS = {27, 41}
ROTATE, FORMAT_DESCRIPTION = 4, 15
SERVER_ID = 770_001


@dataclass
class Dump:
    """A stream and what was read of it."""

    source: BinlogSocket
    reader: BinlogReader
    waker: socket.socket
    events: list[bytes] = field(default_factory=list)

    def read(self, timeout: float = 0.2) -> int:
        """Read once; return how many events came."""
        found = self.reader.read(timeout)
        content = memoryview(found.buffer.data)
        self.events += [bytes(content[a:b]) for a, b in zip(found.start.tolist(), found.end.tolist(), strict=True)]
        self.reader.window.consume(len(found))
        return len(found)

    def read_until(self, marker: bytes, deadline_seconds: float = 60.0) -> None:
        """Read until an event contains the marker."""
        seen = 0

        def found() -> bool:
            nonlocal seen
            self.read()
            new, seen = self.events[seen:], len(self.events)
            return any(marker in event for event in new)

        wait_until(found, deadline_seconds, f"an event with {marker[:30]!r}")

    @property
    def types(self) -> list[int]:
        """The events' types."""
        return [event[4] for event in self.events]


@contextmanager
def dump(url: str, start: StartingPoint, server_id: int = SERVER_ID, *, until_end: bool = False) -> Iterator[Dump]:
    options = ServerOptions(url=url)
    source = start_dump(connect(options), start, server_id, until_end=until_end)
    wake, waker = socket.socketpair()
    reader = BinlogReader(source, wake, lambda: dump_is_working(lambda: connect(options), source.thread_id))
    try:
        yield Dump(source, reader, waker)
    finally:
        source.close()
        wake.close()
        waker.close()


def beginning(server: RunningMySQL, more: int = 0) -> StartingPoint:
    """Return the place behind everything there is, with GTIDs; `more` transactions beyond it."""
    variable = "@@gtid_binlog_pos" if server.release.is_mariadb else "@@gtid_executed"
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {variable}")
        row = cursor.fetchone()
        assert row is not None
    if server.release.is_mariadb:
        origin, _, last = str(row[0]).rpartition("-")
        return AfterGtidList(f"{origin}-{int(last) + more}")
    # One server's own numbers, from 1 without a gap; in binary form the last is not included.
    uuid, _, numbers = str(row[0]).partition(":")
    after = int(numbers.rpartition("-")[2]) + more + 1
    return AfterGtids(struct.pack("<Q16sQQQ", 1, bytes.fromhex(uuid.replace("-", "")), 1, 1, after))


def here(server: RunningMySQL) -> AtFile:
    """Return the log's end as file and position."""
    statement = "SHOW MASTER STATUS" if server.release.is_mariadb else "SHOW BINARY LOG STATUS"
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        row = cursor.fetchone()
        assert row is not None
        return AtFile(row[0], row[1])


def create_table(database: MySQLDatabase) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v longblob)")


@every_mysql
def test_events_come_by_gtid_and_by_file_alike(mysql_source: MySQLDatabase) -> None:
    create_table(mysql_source)
    starts = [beginning(mysql_source.server), here(mysql_source.server)]
    for number in range(50):
        mysql_source.execute("INSERT INTO t VALUES (%s, %s)", number, b"value-%d-" % number * 20)
    found = []

    for start in starts:
        with dump(mysql_source.url, start) as stream:
            stream.read_until(b"value-49-")
            types = stream.types
            found.append([event for event in stream.events if b"value-" in event])

    assert found[0] == found[1]
    assert len(found[0]) == 50
    assert types[:2] == [ROTATE, FORMAT_DESCRIPTION]
    assert all(int.from_bytes(event[9:13], "little") == len(event) for event in stream.events)


@every_mysql
@pytest.mark.parametrize("size", [16_777_000, 40_000_000])
def test_a_row_of_more_than_16_mib_is_whole(mysql_source: MySQLDatabase, size: int) -> None:
    create_table(mysql_source)
    start = beginning(mysql_source.server)
    with mysql_source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL max_allowed_packet = 1073741824")
    with mysql_source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (1, repeat('y', %s))", [size])
        cursor.execute("INSERT INTO t VALUES (2, 'the-last')")

    with dump(mysql_source.url, start) as stream:
        stream.read_until(b"the-last")

    assert any(b"y" * size in event for event in stream.events)


@every_mysql
def test_a_stream_that_ends_with_the_log_says_so(mysql_source: MySQLDatabase) -> None:
    create_table(mysql_source)
    start = beginning(mysql_source.server)
    mysql_source.execute("INSERT INTO t VALUES (1, 'the-last')")

    with dump(mysql_source.url, start, until_end=True) as stream:
        wait_until(lambda: stream.read() == 0 and stream.reader.at_end, what="the end")

    assert b"the-last" in b"".join(stream.events)


@every_mysql
def test_a_large_log_is_the_same_in_pieces_of_any_size(
    mysql_source: MySQLDatabase, fault_proxy: Callable[[str], FaultProxy]
) -> None:
    create_table(mysql_source)
    start = beginning(mysql_source.server)
    with mysql_source.connect(autocommit=False) as connection, connection.cursor() as cursor:
        for begin in range(0, 20_000, 1_000):
            rows = ", ".join(f"({number}, 'row-{number:05d}-')" for number in range(begin, begin + 1_000))
            cursor.execute(f"INSERT INTO t VALUES {rows}")
            connection.commit()
        for number in range(0, 2_000):
            cursor.execute("UPDATE t SET v = concat(v, 'again') WHERE id = %s", [number])
            connection.commit()
    mysql_source.execute("INSERT INTO t VALUES (-1, 'the-last')")

    with dump(mysql_source.url, start) as direct:
        direct.read_until(b"the-last")
    # A proxy passes on what a few system calls give it.
    with dump(fault_proxy(mysql_source.url).url(mysql_source.url), start) as through_proxy:
        through_proxy.read_until(b"the-last")

    everything = b"".join(direct.events)
    assert all(b"row-%05d-" % number in everything for number in range(0, 20_000, 501))
    kept = [event for event in through_proxy.events if event[4] not in HEARTBEATS]
    assert kept == [event for event in direct.events if event[4] not in HEARTBEATS]


@pytest.mark.parametrize("way", ["tls", "socket"])
def test_tls_and_unix_sockets_carry_the_same(own_mysql_server: StartMySQL, tls_certificate: Path, way: str) -> None:
    server = own_mysql_server(
        "mariadb-11.8", ssl_cert=str(tls_certificate / "tls.crt"), ssl_key=str(tls_certificate / "tls.key")
    )
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE d")
        cursor.execute("USE d")
        cursor.execute("CREATE TABLE t (v longblob)")
        cursor.execute("INSERT INTO t SELECT repeat(char(65 + seq), 500000) FROM seq_1_to_20")
        cursor.execute("INSERT INTO t VALUES ('the-last')")
    url = {
        "tls": f"mariadb://root@localhost:{server.port}?ssl-ca={tls_certificate / 'tls.crt'}",
        "socket": f"mariadb://root@localhost?socket={server.socket_path}",
    }[way]

    with dump(url, AfterGtidList("")) as stream:
        stream.read_until(b"the-last")

    everything = b"".join(stream.events)
    assert all(bytes([65 + number]) * 500_000 in everything for number in range(1, 21))


@every_mysql
@pytest.mark.parametrize("after_bytes", [200, 100_001, 1_000_003])
def test_a_broken_connection_is_transient_after_everything_before_it(
    mysql_source: MySQLDatabase, fault_proxy: Callable[[str], FaultProxy], after_bytes: int
) -> None:
    create_table(mysql_source)
    start = beginning(mysql_source.server)
    proxy = fault_proxy(mysql_source.url)

    with dump(proxy.url(mysql_source.url), start) as stream:
        proxy.cut_after(after_bytes)
        # Written only now: of what was there before, any part may have passed the proxy already.
        mysql_source.execute("INSERT INTO t VALUES (1, repeat('x', 3000000))")
        with pytest.raises(TransientError):
            wait_until(lambda: stream.read() < 0)

    assert not any(b"x" * 3_000_000 in event for event in stream.events)


@every_mysql
def test_an_idle_server_is_alive_by_its_heartbeats(
    mysql_source: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replication, "HEARTBEAT_SECONDS", 0.25)
    # Many heartbeats long, so that a machine that stalls for a second or two is no silent server.
    monkeypatch.setattr(reading, "SILENT_SECONDS", 3.0)
    begun = time.monotonic()

    with dump(mysql_source.url, here(mysql_source.server)) as stream:
        wait_until(lambda: stream.read() < 0 or time.monotonic() > begun + 3.5)

    assert len(HEARTBEATS.intersection(stream.types)) == 1
    assert sum(kind in HEARTBEATS for kind in stream.types) >= 3


@every_mysql
def test_a_silent_connection_is_given_up_within_30_seconds(
    mysql_source: MySQLDatabase, fault_proxy: Callable[[str], FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SILENT_SECONDS", 1.0)
    proxy = fault_proxy(mysql_source.url)
    options = ServerOptions(url=proxy.url(mysql_source.url), connect_timeout=2)
    source = start_dump(connect(options, statement_timeout=1.0), here(mysql_source.server), SERVER_ID)
    wake, waker = socket.socketpair()
    reader = BinlogReader(source, wake, lambda: dump_is_working(lambda: connect(options), source.thread_id))
    with closing(source), wake, waker:
        wait_until(lambda: len(reader.read(0.1)), what="the first events")
        proxy.hold()

        # Nothing can be asked through the same path, so nobody says that the server is busy.
        proxy.refuse()
        with pytest.raises(TransientError, match="heartbeat"):
            wait_until(lambda: len(reader.read(0.5)) < 0)
        proxy.release()


@every_mysql
def test_another_session_sees_that_an_idle_dump_waits(mysql_source: MySQLDatabase) -> None:
    with dump(mysql_source.url, here(mysql_source.server)) as stream:
        stream.read(5)

        def is_working() -> bool:
            return dump_is_working(lambda: connect(ServerOptions(url=mysql_source.url)), stream.source.thread_id)

        wait_until(lambda: not is_working(), what="the server waiting for more changes")

        with mysql_source.connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM information_schema.processlist WHERE id = %s", [stream.source.thread_id]
            )
            assert cursor.fetchone() == (1,)


def test_a_server_that_is_busy_with_the_stream_is_not_given_up(
    mysql_source: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SILENT_SECONDS", 0.3)
    asked = 0

    def server_is_busy() -> bool:
        nonlocal asked
        asked += 1
        return True

    options = ServerOptions(url=mysql_source.url)
    source = start_dump(connect(options), here(mysql_source.server), SERVER_ID)
    wake, waker = socket.socketpair()
    with closing(source), wake, waker:
        reader = BinlogReader(source, wake, server_is_busy)

        def look() -> bool:
            reader.read(0.1)
            return asked >= 2

        wait_until(look, what="the second question")


def test_a_wake_up_ends_a_wait(mysql_source: MySQLDatabase) -> None:
    with dump(mysql_source.url, here(mysql_source.server)) as stream:
        wait_until(lambda: stream.read(0.5) == 0, what="the server having nothing more to send")
        threading.Timer(0.2, lambda: stream.waker.send(b"x")).start()
        begun = time.monotonic()

        stream.read(30)

        assert time.monotonic() - begun < 20


@every_mysql
def test_a_second_replica_of_the_same_number_is_explained(mysql_source: MySQLDatabase) -> None:
    create_table(mysql_source)
    start = here(mysql_source.server)
    with dump(mysql_source.url, start) as first:
        first.read(5)
        with dump(mysql_source.url, start) as second:
            second.read(5)
            mysql_source.execute("INSERT INTO t VALUES (1, 'only-for-the-second')")

            with pytest.raises(SetupError, match="same server") as refusal:
                wait_until(lambda: first.read() < 0)
            second.read_until(b"only-for-the-second")

    assert "server_id" in str(refusal.value.hint)


@every_mysql
def test_a_log_that_is_gone_cannot_be_asked_for(own_mysql_server: StartMySQL, mysql_release: str) -> None:
    server = own_mysql_server(mysql_release)
    with server.connect() as connection, connection.cursor() as cursor:
        for number in range(3):
            cursor.execute(f"CREATE DATABASE d{number}")
            cursor.execute("FLUSH BINARY LOGS")

        def is_purged() -> bool:
            # MariaDB keeps a file for a moment in which it would need it to recover from a crash.
            cursor.execute("PURGE BINARY LOGS TO 'binlog.000003'")
            cursor.execute("SHOW BINARY LOGS")
            return bool(cursor.fetchall()[0][0] == "binlog.000003")

        wait_until(is_purged, what="the first files purged")
    starts: list[StartingPoint] = [AtFile("binlog.000001"), AtFile("binlog.000003", 1_000_000)]
    starts.append(AfterGtidList("0-1-1") if server.release.is_mariadb else NOTHING)

    for start in starts:
        with dump(server.url, start) as stream, pytest.raises(DivergedError) as refusal:
            wait_until(lambda stream=stream: stream.read() < 0)  # type: ignore[misc]
        assert "backfill" in str(refusal.value.hint)


@every_mysql
def test_a_position_from_the_future_is_refused(own_mysql_server: StartMySQL, mysql_release: str) -> None:
    server = own_mysql_server(mysql_release)
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE d")
    start = beginning(RunningMySQL(server.release, server.url), more=1_000)

    with dump(server.url, start) as stream, pytest.raises(DivergedError):
        wait_until(lambda: stream.read() < 0)


@every_mysql
def test_a_user_without_the_privilege_is_told(mysql_source: MySQLDatabase) -> None:
    user = mysql_source.create_user("PROCESS")

    with pytest.raises(SetupError) as refusal, dump(mysql_source.url_as(user), here(mysql_source.server)) as stream:
        wait_until(lambda: stream.read() < 0)

    assert "REPLICATION SLAVE" in str(refusal.value.hint)


@every_mysql
def test_a_replication_user_is_enough(mysql_source: MySQLDatabase) -> None:
    create_table(mysql_source)
    user = mysql_source.create_user("REPLICATION SLAVE")
    start = beginning(mysql_source.server)
    mysql_source.execute("INSERT INTO t VALUES (1, 'the-last')")

    with dump(mysql_source.url_as(user), start) as stream:
        stream.read_until(b"the-last")


@every_mysql
def test_a_server_without_a_binary_log_is_told_apart(own_mysql_server: StartMySQL, mysql_release: str) -> None:
    server = own_mysql_server(mysql_release, log_bin="OFF", skip_log_bin="ON")

    with pytest.raises(SetupError) as refusal, dump(server.url, AtFile("binlog.000001")) as stream:
        wait_until(lambda: stream.read() < 0)

    assert "log_bin" in str(refusal.value.hint)


@every_mysql
def test_a_killed_server_is_transient(own_mysql_server: StartMySQL, mysql_release: str) -> None:
    server = own_mysql_server(mysql_release)
    with dump(server.url, AtFile("binlog.000001")) as stream:
        stream.read(5)

        server.kill()

        with pytest.raises(TransientError):
            wait_until(lambda: stream.read() < 0)


def test_a_server_that_shuts_down_is_transient(own_mysql_server: StartMySQL) -> None:
    # Not MySQL, which sends the same after waiting for ten seconds.
    server = own_mysql_server("mariadb-10.11")
    with dump(server.url, AtFile("binlog.000001")) as stream:
        stream.read(5)

        server.stop()

        with pytest.raises(TransientError):
            wait_until(lambda: stream.read() < 0)


def test_a_position_beyond_4_gib_of_a_file_cannot_be_asked_for(mysql_source: MySQLDatabase) -> None:
    with pytest.raises(SetupError, match="position"), dump(mysql_source.url, AtFile("binlog.000001", 2**32)):
        pass


@every_mysql
def test_a_log_without_checksums_is_announced(own_mysql_server: StartMySQL, mysql_release: str) -> None:
    server = own_mysql_server(mysql_release, binlog_checksum="NONE")

    with dump(server.url, AtFile("binlog.000001")) as stream:
        stream.read(5)
        assert not stream.source.checksums
    with dump(own_mysql_server(mysql_release, binlog_checksum="CRC32").url, AtFile("binlog.000001")) as stream:
        assert stream.source.checksums
