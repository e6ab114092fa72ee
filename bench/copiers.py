"""The ways to copy a table once that W5 compares: commands whose run time is measured from start to exit."""

from __future__ import annotations

import os
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

from bench import environments
from bench.clusters import Clusters
from bench.consumers.replicator import Target, TargetFiles, log_tail, program, write_config
from bench.processes import UsageSampler
from bench.servers import Servers
from bench.tables import BENCH, BENCH_DDL, BENCH_WITH_JSON_REWRITTEN, Contents
from bench.waiting import BenchError

COMPETITORS: Final = Path(__file__).parent / "competitors"
LIMIT_SECONDS: Final = 3600


class Copier(ABC):
    """Copies one table from a source database into an empty target of its own."""

    name: str
    target: Target
    contents: Contents = BENCH
    """What of the table must arrive."""

    def set_up(self, servers: Servers, database: str) -> None:
        """Make an empty target; not measured."""
        slug = "".join(letter if letter.isalnum() else "_" for letter in self.name.lower())
        self.servers, self.database = servers, database
        self.files = TargetFiles(servers, self.target, f"{database}_{slug}")
        self.files.create()

    @abstractmethod
    def copy(self, sampler: UsageSampler) -> None:
        """Copy; measured."""

    def run(self, command: list[str], sampler: UsageSampler) -> None:
        """Run one command to its end."""
        with self.files.log.open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            sampler.watch(process.pid)
            code = process.wait(LIMIT_SECONDS)
        if code != 0:
            raise BenchError(f"{self.name} ended with exit code {code}: {log_tail(self.files.log)}")


class CdcrepBackfill(Copier):
    """`cdcrep backfill CONFIG` with the smallest configuration file."""

    def __init__(self, target: Target, contents: Contents = BENCH) -> None:
        self.target = target
        self.contents = contents
        self.name = f"cdcrep to {target}"

    def copy(self, sampler: UsageSampler) -> None:
        source_url = self.servers.source.url(self.database)
        write_config(self.files.config, "bench_backfill", source_url, self.files.url, [self.contents.table])
        self.run([*program(), "backfill", str(self.files.config)], sampler)


class CopyPipe(Copier):
    """`psql COPY … TO STDOUT (FORMAT binary) | psql COPY … FROM STDIN`, one pair of connections per ctid range."""

    target = "PostgreSQL"

    def __init__(self, clusters: Clusters, connections: int, *, key_after: bool) -> None:
        self.clusters = clusters
        self._connections = connections
        self._key_after = key_after
        self.name = "psql COPY pipe" + (", key built after" if key_after else "")

    def set_up(self, servers: Servers, database: str) -> None:
        super().set_up(servers, database)
        ddl = BENCH_DDL.replace("PRIMARY KEY", "NOT NULL") if self._key_after else BENCH_DDL
        self.clusters.target.execute(self.files.name, ddl)

    def copy(self, sampler: UsageSampler) -> None:
        source = self.clusters.source
        ((pages,),) = source.execute(
            self.database, "SELECT pg_relation_size('bench') / current_setting('block_size')::int"
        )
        bounds = [pages * part // self._connections for part in range(self._connections + 1)]
        with tempfile.TemporaryFile() as errors:
            started: list[subprocess.Popen[bytes]] = []
            for first, after in pairwise(bounds):
                rows = f"SELECT * FROM bench WHERE ctid >= '({first},0)' AND ctid < '({after},0)'"
                reader = self._psql(
                    source.dsn(self.database), f"COPY ({rows}) TO STDOUT (FORMAT binary)", errors.fileno(), None
                )
                assert reader.stdout
                writer = self._psql(
                    self.clusters.target.dsn(self.files.name),
                    "COPY bench FROM STDIN (FORMAT binary)",
                    errors.fileno(),
                    reader.stdout.fileno(),
                )
                reader.stdout.close()
                started += [reader, writer]
            for process in started:
                sampler.watch(process.pid)
            codes = [process.wait(LIMIT_SECONDS) for process in started]
            if any(codes):
                errors.seek(0)
                raise BenchError(f"psql failed: {errors.read().decode(errors='replace').strip()[-300:]}")
        if self._key_after:
            self.clusters.target.execute(self.files.name, "ALTER TABLE bench ADD PRIMARY KEY (id)")

    def _psql(self, dsn: str, statement: str, errors: int, stdin: int | None) -> subprocess.Popen[bytes]:
        server = self.clusters.source.server
        return subprocess.Popen(
            [server.binaries / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement, dsn],
            env=server.environment,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE if stdin is None else subprocess.DEVNULL,
            stderr=errors,
        )


class Script(Copier):
    """One of `bench/competitors`, in an environment of its own."""

    target = "DuckDB"

    def __init__(
        self,
        name: str,
        file: str,
        packages: tuple[str, ...],
        argument: str,
        address: Callable[[str], str],
        contents: Contents = BENCH,
    ) -> None:
        self.name = name
        self._file, self._packages, self._argument, self._address = file, packages, argument, address
        self.contents = contents

    def set_up(self, servers: Servers, database: str) -> None:
        super().set_up(servers, database)
        self._python = environments.python_with(self._file, self._packages)

    def copy(self, sampler: UsageSampler) -> None:
        address = self._address(self.database)
        script = COMPETITORS / f"{self._file}.py"
        self.run([str(self._python), str(script), address, str(self.files.file), self._argument], sampler)


def copiers(clusters: Clusters, connections: int) -> list[Copier]:
    """Every way to copy, those into one kind of target side by side."""
    dsn, url = clusters.source.dsn, clusters.source.url
    # ConnectorX reads one partition per processor, as its documentation recommends.
    partitions = str(os.cpu_count() or 2)
    return [
        CopyPipe(clusters, connections, key_after=False),
        CdcrepBackfill("PostgreSQL"),
        CopyPipe(clusters, connections, key_after=True),
        Script("DuckDB postgres scanner", "duckdb_scanner", environments.SCANNER, "plain", dsn),
        CdcrepBackfill("DuckDB"),
        Script("ConnectorX", "connectorx_load", environments.CONNECTORX, partitions, url, BENCH_WITH_JSON_REWRITTEN),
        Script("DuckDB postgres scanner, with key", "duckdb_scanner", environments.SCANNER, "key", dsn),
    ]
