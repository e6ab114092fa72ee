"""Captures what real servers send for a scripted workload: `python -m tests.golden.pgoutput_capture MAJOR…`.

Writes `tests/golden/pgoutput-MAJOR.bin`: CopyData messages as received, from a slot of that server. The workload uses
every message of protocol version 1; `test_pgoutput_golden` says what it must decode to.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import psycopg

from cdcrep.demo.postgres_server import PostgresServer, find_binaries

HERE = Path(__file__).parent

SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE keyed (id int PRIMARY KEY, name text, big text, feeling mood, at timestamptz);
ALTER TABLE keyed ALTER big SET STORAGE EXTERNAL;
CREATE TABLE whole (a int, b text);
ALTER TABLE whole ALTER b SET STORAGE EXTERNAL;
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE indexed (k text NOT NULL UNIQUE, "quoted ""name%s" numeric(10,2));
ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_k_key;
CREATE TABLE nothing ();
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id serial PRIMARY KEY, parent int REFERENCES parent);
CREATE PUBLICATION golden FOR ALL TABLES
"""

WORKLOAD = (
    "INSERT INTO keyed VALUES (1, 'one', repeat('x', 3000), 'happy', '2024-02-29 12:00+00'), (2, NULL, '', NULL, NULL)",
    "UPDATE keyed SET name = 'ünö' WHERE id = 1",
    "UPDATE keyed SET id = 10 WHERE id = 1",
    "DELETE FROM keyed WHERE id = 2",
    "INSERT INTO whole VALUES (1, repeat('y', 3000)), (1, NULL), (NULL, NULL)",
    "UPDATE whole SET a = 2 WHERE b IS NOT NULL",
    "DELETE FROM whole WHERE a IS NULL",
    "INSERT INTO indexed VALUES ('a', 1.5)",
    "UPDATE indexed SET k = 'b'",
    "INSERT INTO nothing DEFAULT VALUES",
    "INSERT INTO parent VALUES (1); INSERT INTO child (parent) VALUES (1)",
    "TRUNCATE parent RESTART IDENTITY CASCADE",
    "INSERT INTO parent VALUES (2)",
    "ALTER TABLE indexed ADD extra boolean DEFAULT true",
    "INSERT INTO indexed VALUES ('c', 0, NULL)",
    "SELECT pg_logical_emit_message(true, 'golden', 'content'), pg_logical_emit_message(false, 'golden', 'alone')",
    "SELECT pg_replication_origin_create('elsewhere')",
    "SELECT pg_replication_origin_session_setup('elsewhere'); "
    "SELECT pg_replication_origin_xact_setup('0/ABCDEF', '2024-01-01 00:00+00'); INSERT INTO parent VALUES (3)",
)


def capture(major: int) -> bytes:
    """Run the workload on a server of this version and return what its walsender sends."""
    with PostgresServer(find_binaries(major), settings={"fsync": "off"}) as server:
        connection: psycopg.Connection[Any] = psycopg.connect(server.dsn, autocommit=True)
        connection.execute("SET timezone = 'UTC'")
        connection.execute(SCHEMA.encode())
        connection.execute("SELECT pg_create_logical_replication_slot('golden', 'pgoutput')")
        for statement in WORKLOAD:
            connection.execute(statement.encode())
        end = connection.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
        assert end is not None
        stream = psycopg.connect(server.dsn, replication="database", options="-c timezone=UTC").pgconn
        stream.exec_(
            b"START_REPLICATION SLOT golden LOGICAL 0/0 "
            b"(proto_version '1', publication_names 'golden', messages 'true')"
        )
        received = b""
        while True:
            size, payload = stream.get_copy_data(0)
            received += b"d" + struct.pack(">I", size + 4) + bytes(payload)
            if bytes(payload[:1]) == b"k" and int.from_bytes(payload[1:9], "big") >= end[0]:
                return received


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        (HERE / f"pgoutput-{argument}.bin").write_bytes(capture(int(argument)))
