"""What can happen on the wire of a replication stream: TLS, Unix sockets, breaks, silence, errors in the stream."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from cdcrep.errors import SetupError, TransientError
from cdcrep_connectors.postgres import reading
from cdcrep_connectors.postgres.replication import server_error
from tests.integration.stream_following import Followed, column, limited
from tests.servers.database import Database
from tests.servers.fault_proxy import FaultProxy
from tests.servers.fix_postgres import StartServer

TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text)"
FILL = "INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) n"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A directory with a self-signed `tls.crt` and `tls.key` that a server may read."""
    directory = Path("/tmp", f"cdcrep-tls-{os.getpid()}")
    directory.mkdir(mode=0o755)
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    key, crt = directory / "tls.key", directory / "tls.crt"
    subprocess.run([*command, "-keyout", key, "-out", crt], check=True, capture_output=True)
    if os.geteuid() == 0:
        os.chown(key, 65534, 65534)
    return directory


def test_a_stream_through_tls_is_the_same(own_postgres_server: StartServer, certificate: Path) -> None:
    try:
        server = own_postgres_server(
            17, ssl="on", ssl_cert_file=str(certificate / "tls.crt"), ssl_key_file=str(certificate / "tls.key")
        )
        followed = Followed(server.dsn, TABLE)
        followed.execute(FILL)
        followed.execute("INSERT INTO t VALUES (-1, repeat('y', 20000000))")

        with closing(followed.stream(sslmode="require", options="-c wal_sender_timeout=3s")) as stream:
            batches = list(stream.stream(followed.start, {}, followed.now()))
            assert batches[-1].position is not None
            stream.confirm(batches[-1].position)
    finally:
        shutil.rmtree(certificate)

    assert column(batches) == [*map(str, range(1, 20_001)), "-1"]
    assert len(column(batches, "v")[-1]) == 20_000_000
    assert followed.confirmed() in str(batches[-1].position)


def test_a_stream_through_a_unix_socket_is_the_same(own_postgres_server: StartServer) -> None:
    server = own_postgres_server(17)
    followed = Followed(server.dsn, TABLE)
    followed.execute(FILL)

    with closing(followed.stream(host=str(server.socket_directory))) as stream:
        batches = list(stream.stream(followed.start, {}, followed.now()))

    assert column(batches) == [*map(str, range(1, 20_001))]


@pytest.mark.parametrize("after_bytes", [3_000, 100_001, 5_000_003])
def test_a_broken_connection_is_transient_and_loses_nothing(
    source_database: Database, fault_proxy: Callable[[str], FaultProxy], after_bytes: int
) -> None:
    followed = Followed(source_database.dsn, TABLE)
    followed.execute(FILL)
    proxy = fault_proxy(source_database.url)
    position, seen = followed.start, []

    proxy.cut_after(after_bytes)
    for _ in range(2):
        with closing(followed.stream(dsn=proxy.url(source_database.url))) as stream:
            try:
                for batch in stream.stream(position, {}, followed.now()):
                    seen.append(batch)
                    position = batch.position or position
            except TransientError:
                seen = [batch for batch in seen if batch.position is not None]

    assert column(seen) == [*map(str, range(1, 20_001))]


def test_a_server_that_falls_silent_is_given_up(
    source_database: Database, fault_proxy: Callable[[str], FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PROBE_AFTER_SECONDS", 0.6)
    followed = Followed(source_database.dsn, TABLE)
    followed.execute("INSERT INTO t VALUES (1)")
    proxy = fault_proxy(source_database.url)
    with closing(followed.stream(dsn=proxy.url(source_database.url), connect_timeout=2)) as stream:
        batches = stream.stream(followed.start, {})
        next(batch for batch in batches if batch.changes)
        proxy.hold()

        with pytest.raises(TransientError, match="has not answered"):
            list(batches)
        proxy.release()


def test_a_server_that_answers_probes_is_not_given_up(
    source_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PROBE_AFTER_SECONDS", 0.6)
    followed = Followed(source_database.dsn, TABLE)
    answers = []

    with closing(followed.stream(limited(heartbeat_seconds=1.5))) as stream:
        batches = stream.stream(followed.start, {})
        for _ in range(3):
            followed.execute("SELECT pg_logical_emit_message(true, 'other', '')")
            answers.append(next(batches))
        followed.execute("INSERT INTO t VALUES (1)")
        assert column([next(batch for batch in batches if batch.changes)]) == ["1"]

    assert len(answers) == 3


def test_a_missing_publication_is_an_error_in_the_stream(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)
    followed.execute("DROP PUBLICATION published")
    followed.execute("INSERT INTO t VALUES (1)")

    with (
        closing(followed.stream()) as stream,
        pytest.raises(SetupError, match='publication "published" does not exist'),
    ):
        list(stream.stream(followed.start, {}))


def test_a_killed_walsender_is_transient(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)
    followed.execute("INSERT INTO t VALUES (1)")
    with closing(followed.stream()) as stream:
        batches = stream.stream(followed.start, {})
        next(batches)
        followed.execute(
            f"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{followed.slot}'"
        )

        with pytest.raises(TransientError):
            list(batches)


def test_an_error_message_of_an_unknown_code_keeps_its_text() -> None:
    error = server_error(b"SERROR\0C58000\0Mno space\0\0")
    odd = server_error(b"SERROR\0CZZ999\0Mstrange\0\0")

    assert isinstance(error, TransientError)
    assert "no space" in error.message
    assert "ZZ999" in odd.message
    assert isinstance(odd.__cause__, psycopg.Error | None)
