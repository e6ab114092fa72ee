"""Measures what the way of reading costs a server that sends its binary log: `python -m bench.dump_pattern KIND`.

KIND is mariadb or mysql. Backlogs of inserts (1,000 rows a statement) and of single-row updates are read and dropped:
at once whenever there is something, and with rests between two reads. Prints the rate and the server's CPU.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Final

import pymysql

from bench.consumers.dump_receiver import SERVER_ID
from bench.consumers.receiver import receive
from bench.mysql_servers import KINDS, MySQLDatabases, MySQLServers
from bench.mysql_workloads import inserts, updates
from bench.processes import cpu_times
from cdcrep_connectors.mysql.position import Place
from cdcrep_connectors.mysql.replication import AtFile, start_dump

RESTS_MS: Final = (0, 1, 2, 5, 10, 20, 50)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with MySQLServers(arguments.kind, 15, Path(tempfile.gettempdir())) as servers:
        source = servers.source
        rows = arguments.rows
        for workload in (inserts(source, "inserts", rows), updates(source, "updates", rows, 10_000)):
            source.create_database(workload.database)
            workload.set_up(workload.database)
            place, token = source.place(), f"the end of {workload.name}"
            workload.write(workload.database)
            source.execute(workload.database, f"INSERT INTO mark VALUES (1, '{token}')")
            source.checkpoint()
            for number in range(arguments.rounds):
                for rest in RESTS_MS:
                    seconds, user, system = _read(source, place, token, rest / 1000)
                    print(
                        f"{workload.name}, round {number + 1}, {rest:2} ms rest: {rows / seconds:11,.0f} rows/s, "
                        f"server {user:.2f} s user, {system:.2f} s system",
                        flush=True,
                    )


def _read(source: MySQLDatabases, place: Place, token: str, rest: float) -> tuple[float, float, float]:
    """Read a backlog from a place on up to a token."""
    connection = pymysql.connect(
        host="127.0.0.1", port=source.server.port, user="root", autocommit=True, ssl_disabled=True
    )
    user, system = cpu_times(source.server.pid or 0) or (0.0, 0.0)
    began = time.monotonic()
    dump = start_dump(connection, AtFile(place.reached.file, place.reached.offset), SERVER_ID)
    receive(dump.socket, token.encode(), rest_seconds=rest)
    seconds = time.monotonic() - began
    after = cpu_times(source.server.pid or 0) or (0.0, 0.0)
    dump.close()
    source.end_stream("")
    return seconds, after[0] - user, after[1] - system


if __name__ == "__main__":
    main()
