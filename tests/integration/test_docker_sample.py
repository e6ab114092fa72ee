"""The compose sample runs on a real server: its SQL as the image's entry point runs it, its pipeline, its commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import psycopg

from tests.servers.fix_postgres import StartServer

DOCKER = Path(__file__).parents[2] / "docker"
SOURCE = DOCKER / "source"


def commands() -> list[list[str]]:
    """Return the arguments of `cdcrep` in the commands that the compose file recommends, after those of its service."""
    recommended = re.findall(r"exec cdcrep cdcrep (.*)", (DOCKER / "compose.yaml").read_text())
    return [["check", "/etc/cdcrep/shop.toml"], ["run", "/etc/cdcrep/shop.toml"], *map(shlex.split, recommended)]


def test_the_sample_shop_is_replicated_by_its_role(own_postgres_server: StartServer, tmp_path: Path) -> None:
    server = own_postgres_server(password="sample")
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE shop")
    environment = {
        **server.environment,
        "PATH": f"{server.binaries}:/usr/bin:/bin",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGPASSWORD": "sample",
        "SOURCE_PASSWORD": "it's secret",
    }

    subprocess.run(["sh", "-e", SOURCE / "01-role.sh"], env=environment, check=True)
    shop = ["psql", "--set=ON_ERROR_STOP=1", "--quiet", "--username=postgres", "--dbname=shop"]
    subprocess.run([*shop, f"--file={SOURCE / '02-shop.sql'}"], env=environment, check=True)

    pipeline = (DOCKER / "shop.toml").read_text()
    for theirs, ours in (("@source:5432", f"@127.0.0.1:{server.port}"), ("/var/lib/cdcrep", str(tmp_path))):
        assert theirs in pipeline
        pipeline = pipeline.replace(theirs, ours)
    (tmp_path / "shop.toml").write_text(pipeline)
    own = {"SOURCE_PASSWORD": environment["SOURCE_PASSWORD"], "CDCREP_RUNTIME_DIR": str(tmp_path)}
    for name, config, *words in commands():
        assert config == "/etc/cdcrep/shop.toml"
        stop = ["--until-current"] if name == "run" else []
        done = subprocess.run(
            [sys.executable, "-m", "cdcrep", name, tmp_path / "shop.toml", *stop, *words],
            env=os.environ | own,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"

    assert name == "query"
    assert "1000" in done.stdout
