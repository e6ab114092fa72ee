"""Connections that are not safe are refused by the command line, before anything is sent or created."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pyarrow as pa
import pytest

from cdcrep.errors import ConfigError, SetupError
from tests.crash.children import command
from tests.crash.pipeline import Pipeline
from tests.integration.postgres_source import source
from tests.servers.database import Database, RunningServer
from tests.servers.fix_postgres import DEFAULT_MAJOR, StartServer


@pytest.fixture
def certificates() -> Iterator[Path]:
    """A directory with self-signed `tls.crt` and `other.crt` for localhost and their keys, which a server may read."""
    # Not below tmp_path, which the server's user cannot enter.
    directory = Path(tempfile.mkdtemp(prefix="cdcrep-tls-", dir="/tmp"))
    directory.chmod(0o755)
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    for name in ("tls", "other"):
        key, crt = directory / f"{name}.key", directory / f"{name}.crt"
        subprocess.run([*command, "-keyout", key, "-out", crt], check=True, capture_output=True)
        if os.geteuid() == 0:
            os.chown(key, 65534, 65534)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def encrypted(own_postgres_server: StartServer, certificates: Path) -> Database:
    """A database with a table of three rows, whose server takes connections with TLS only."""
    server = own_postgres_server(
        ssl="on", ssl_cert_file=str(certificates / "tls.crt"), ssl_key_file=str(certificates / "tls.key")
    )
    rules = server.data_directory / "pg_hba.conf"
    rules.write_text("hostssl all all 127.0.0.1/32 trust\nhostssl all all ::1/128 trust\n")
    database = Database.create(RunningServer(DEFAULT_MAJOR, f"{server.dsn} sslmode=require"))
    database.execute("SELECT pg_reload_conf()")
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        database.connect(sslmode="disable")
    database.execute("CREATE TABLE t (id bigint PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3)")
    return database


def verified(database: Database, certificate: Path, host: str = "localhost") -> str:
    """Return the URL of a database whose server must have this certificate and this name."""
    parts = urlsplit(database.url)
    address = parts.netloc.replace("127.0.0.1", host)
    return parts._replace(netloc=address, query=f"sslmode=verify-full&sslrootcert={certificate}").geturl()


WRONG = (("other.crt", "localhost"), ("tls.crt", "127.0.0.1"))
"""Another certificate than the server's; another name than the certificate's."""


@pytest.mark.parametrize("section", ["source", "target"])
def test_a_server_that_is_not_the_right_one_is_refused(
    encrypted: Database, certificates: Path, tmp_path: Path, section: str
) -> None:
    right = verified(encrypted, certificates / "tls.crt")
    pipeline = Pipeline.create(tmp_path, encrypted, right, ("t",))

    for name, host in WRONG:
        urls = {"source": right, "target": right, section: verified(encrypted, certificates / name, host)}
        ended = command(pipeline, "run", "--until-current", *(f"--set={each}.url={url}" for each, url in urls.items()))

        assert ended.code == SetupError.exit_code, ended.output
        assert "certificate" in ended.output
    assert encrypted.execute("SELECT 1 FROM pg_replication_slots") == []


def test_a_backfill_into_duckdb_reads_over_tls(encrypted: Database, certificates: Path, tmp_path: Path) -> None:
    pipeline = Pipeline.create(tmp_path, encrypted, f"duckdb:///{tmp_path / 'target.duckdb'}", ("t",))

    ended = command(pipeline, "backfill", "--set", f"source.url={verified(encrypted, certificates / 'tls.crt')}")

    assert ended.code == 0, ended.output
    assert pipeline.target_rows("t") == [("1",), ("2",), ("3",)]


def test_typed_columns_read_over_tls_are_those_in_text_form(encrypted: Database) -> None:
    encrypted.execute(
        "ALTER TABLE t ADD v float8, ADD w text; INSERT INTO t SELECT g, NULLIF(g % 7, 0), repeat('w', g % 900) "
        "FROM generate_series(4, 3000) AS g; INSERT INTO t VALUES (0, 'NaN', repeat('long', 1000000))"
    )

    with source(encrypted) as opened:
        opened.set_up()
        snapshot = opened.start()
        (table,) = opened.tables()
        (chunk,) = snapshot.chunks(table, None)
        formats = snapshot.read(chunk)
        text, batches = (list(formats[name]()) for name in ("arrow", "arrow-typed"))
        assert snapshot._holder.pgconn.ssl_in_use

    typed = pa.Table.from_batches(batches)
    assert len(batches) > 2
    assert typed.schema.types == [pa.int64(), pa.float64(), pa.string()]
    # As text, for NaN is not equal to itself.
    assert [str(row) for row in typed.to_pylist()] == [
        str({"id": int(row["id"]), "v": None if row["v"] is None else float(row["v"]), "w": row["w"]})
        for row in pa.Table.from_batches(text).to_pylist()
    ]


@pytest.mark.parametrize("section", ["source", "target"])
def test_plain_text_to_another_machine_is_refused_before_anything_is_done(
    source_database: Database, target_database: Database, tmp_path: Path, section: str
) -> None:
    source_database.execute("CREATE TABLE t (id bigint PRIMARY KEY)")
    pipeline = Pipeline.create(tmp_path, source_database, target_database.url, ("t",))
    url = source_database.url if section == "source" else target_database.url
    # No such name can exist, so nothing can be sent there.
    distant = f"{url.replace('127.0.0.1', 'db.invalid')}?sslmode=disable"

    ended = command(pipeline, "run", "--until-current", "--set", f"{section}.url={distant}")

    assert ended.code == ConfigError.exit_code, ended.output
    assert "insecure = true" in ended.output
    assert source_database.execute("SELECT 1 FROM pg_publication") == []
