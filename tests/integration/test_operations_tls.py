"""Connections that are not safe are refused by the command line, before anything is sent or created."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdcrep.errors import ConfigError, SetupError
from tests.crash.children import command
from tests.crash.pipeline import Pipeline
from tests.servers.database import Database, RunningServer
from tests.servers.fix_postgres import DEFAULT_MAJOR, StartServer


@pytest.fixture
def certificate() -> Iterator[Path]:
    """A directory with a self-signed `tls.crt` for localhost and its `tls.key`, which a server may read."""
    # Not below tmp_path, which the server's user cannot enter.
    directory = Path(tempfile.mkdtemp(prefix="cdcrep-tls-", dir="/tmp"))
    directory.chmod(0o755)
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    key, crt = directory / "tls.key", directory / "tls.crt"
    subprocess.run([*command, "-keyout", key, "-out", crt], check=True, capture_output=True)
    if os.geteuid() == 0:
        os.chown(key, 65534, 65534)
    yield directory
    shutil.rmtree(directory)


def test_a_servers_certificate_with_another_name_is_refused(
    own_postgres_server: StartServer, certificate: Path, tmp_path: Path
) -> None:
    server = own_postgres_server(
        ssl="on", ssl_cert_file=str(certificate / "tls.crt"), ssl_key_file=str(certificate / "tls.key")
    )
    source = Database.create(RunningServer(DEFAULT_MAJOR, server.dsn))
    source.execute("CREATE TABLE t (id bigint PRIMARY KEY)")
    pipeline = Pipeline.create(tmp_path, source, f"duckdb:///{tmp_path / 'target.duckdb'}", ("t",))
    verified = f"{source.url}?sslmode=verify-full&sslrootcert={certificate / 'tls.crt'}"

    right = command(pipeline, "check", "--set", f"source.url={verified.replace('127.0.0.1', 'localhost')}")
    wrong = command(pipeline, "run", "--set", f"source.url={verified}")

    assert right.code == 0, right.output
    assert wrong.code == SetupError.exit_code, wrong.output
    assert "certificate" in wrong.output
    assert source.execute("SELECT 1 FROM pg_replication_slots") == []


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
