"""What a run measures on MySQL and MariaDB: W1m, W2m and W5m, each on both."""

from __future__ import annotations

from functools import partial
from typing import Final

from bench import environments
from bench.backfill import measure_backfills
from bench.consumers.consumer import Consumer
from bench.consumers.dump_readers import CdcrepDecode, MySQLReplication, RawDump
from bench.consumers.replica import Replica
from bench.consumers.replicator import Replicator
from bench.copiers import CdcrepBackfill, Copier, Script
from bench.drain import measure_drains
from bench.mysql_servers import KINDS, MySQLServers
from bench.mysql_workloads import contents_of, create_bench, inserts, updates
from bench.requirements import SSCURSOR
from bench.results import Outcome, Say

MYSQL_WORKLOADS: Final = tuple(f"{workload}-{kind}" for kind in KINDS for workload in ("W1m", "W2m", "W5m"))


def measure(
    servers: MySQLServers, workload: str, *, changes: int, rows: int, backfill_rows: int, rounds: int, say: Say
) -> Outcome:
    """Measure one of `MYSQL_WORKLOADS`, on servers of its kind."""
    source = servers.source
    if workload.startswith("W5m"):
        create = partial(create_bench, source)
        return measure_backfills(servers, workload, create, _copiers(servers, workload), backfill_rows, rounds, say)
    if workload.startswith("W1m"):
        return measure_drains(servers, inserts(source, workload, changes), _everyone(servers), rounds, say)
    return measure_drains(servers, updates(source, workload, changes, rows), _everyone(servers), rounds, say)


def _everyone(servers: MySQLServers) -> list[Consumer]:
    readers: list[Consumer] = [RawDump(servers.source), MySQLReplication(servers.source)]
    return [*readers, Replica(servers), CdcrepDecode(servers.source), Replicator("DuckDB"), Replicator("PostgreSQL")]


def _copiers(servers: MySQLServers, workload: str) -> list[Copier]:
    database = workload.lower().replace("-", "_")
    contents = contents_of(database)
    port = str(servers.source.server.port)
    loop = Script(SSCURSOR, "pymysql_loop", environments.PYMYSQL, database, lambda _: port, contents)
    return [loop, CdcrepBackfill("DuckDB", contents)]
