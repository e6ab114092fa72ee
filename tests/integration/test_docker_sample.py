"""The SQL of the compose sample runs on a real server, as the image's entry point would run it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psycopg

from tests.servers.fix_postgres import StartServer

SOURCE = Path(__file__).parents[2] / "docker" / "source"


def test_the_sample_shop_can_be_replicated_by_its_role(own_postgres_server: StartServer) -> None:
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

    with psycopg.connect(server.dsn, dbname="shop", user="cdc", password="it's secret", autocommit=True) as connection:
        connection.execute("CREATE PUBLICATION shop FOR TABLE customers, orders")
        connection.execute("SELECT pg_create_logical_replication_slot('shop', 'pgoutput')")
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (1000,)
