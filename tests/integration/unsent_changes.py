"""Statements that change which rows a table has, or seem to, beside what the stream tells of them; who follows them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from cdcrep.changes import Batch
from cdcrep.connector import Copied, Pipeline
from cdcrep.position import Position
from cdcrep.selection import Selection
from cdcrep.table import TableId
from cdcrep_connectors.postgres.lsn import parse_position
from cdcrep_connectors.postgres.options import SourceOptions
from cdcrep_connectors.postgres.source import PostgresSource
from tests.servers.database import Database

TABLES: Final = """
    CREATE TABLE events (id int, day int, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10);
    CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20);
    CREATE TABLE staged (LIKE events);
    CREATE TABLE plain (id int PRIMARY KEY, v text, w int);
    INSERT INTO events SELECT i, i % 20, 'copied' FROM generate_series(1, 100) i;
    INSERT INTO plain SELECT i, 'copied', i FROM generate_series(1, 100) i
"""

ATTACH: Final = "ALTER TABLE events ATTACH PARTITION staged FOR VALUES FROM (20) TO (30)"

UNSENT: Final = {
    "truncate": ("TRUNCATE events_2", "partition public.events_2 of public.events was emptied"),
    "truncate and load": (
        "BEGIN; TRUNCATE events_2; INSERT INTO events SELECT i, 15, 'new' FROM generate_series(1, 9) i; COMMIT",
        "partition public.events_2 of public.events was emptied",
    ),
    "truncate, load, vacuum": (
        "TRUNCATE events_2; INSERT INTO events VALUES (7, 15, 'new'); VACUUM FULL events_2",
        "partition public.events_2 of public.events was emptied",
    ),
    "truncate all, load, truncate one": (
        "TRUNCATE events; INSERT INTO events SELECT i, i % 20 FROM generate_series(1, 9) i; TRUNCATE events_1",
        "partition public.events_1 of public.events was emptied",
    ),
    "attach": (f"INSERT INTO staged VALUES (1, 25); {ATTACH}", "partition public.staged was attached to public.events"),
    "load and attach at once": (
        f"BEGIN; CREATE TABLE made (LIKE events); INSERT INTO made VALUES (1, 25); {ATTACH}; COMMIT".replace(
            "PARTITION staged", "PARTITION made"
        ),
        "partition public.made was attached to public.events",
    ),
    "load and attach in savepoints": (
        "BEGIN; SAVEPOINT a; CREATE TABLE made (LIKE events); INSERT INTO made VALUES (1, 25); RELEASE a; "
        f"{ATTACH}; COMMIT".replace("PARTITION staged", "PARTITION made"),
        "partition public.made was attached to public.events",
    ),
    "attach partitions of a partition": (
        "CREATE TABLE half (LIKE events) PARTITION BY RANGE (day); "
        "CREATE TABLE half_1 PARTITION OF half FOR VALUES FROM (20) TO (25); INSERT INTO half VALUES (1, 21); "
        "ALTER TABLE events ATTACH PARTITION half FOR VALUES FROM (20) TO (30)",
        "partition public.half_1 was attached to public.events",
    ),
    "detach": ("ALTER TABLE events DETACH PARTITION events_1", "of public.events was dropped or detached"),
    "detach and attach": (
        "ALTER TABLE events DETACH PARTITION events_1; UPDATE events_1 SET v = 'unseen' WHERE id = 1; "
        "ALTER TABLE events ATTACH PARTITION events_1 FOR VALUES FROM (0) TO (10)",
        "public.events",
    ),
    "drop": ("DROP TABLE events_1", "of public.events was dropped or detached"),
    "drop and create": (
        "DROP TABLE events_1; CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10)",
        "of public.events was dropped or detached",
    ),
    "convert": ("ALTER TABLE plain ALTER v TYPE text USING v || '!'", "rewrote the rows of public.plain .*'v'"),
    "convert a partition": ("ALTER TABLE events ALTER v TYPE text USING v || '!'", "of public.events|rewrote the rows"),
}
"""Statements, and what the error says."""

HARMLESS: Final = {
    "new partition": (
        "CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (20) TO (30); "
        "INSERT INTO events SELECT i, 20 + i % 10 FROM generate_series(1, 50) i"
    ),
    "new partition and rows at once": (
        "BEGIN; CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (20) TO (30); "
        "INSERT INTO events SELECT i, 20 + i % 10 FROM generate_series(1, 50) i; COMMIT"
    ),
    "partition made and attached": (
        "BEGIN; CREATE TABLE made (LIKE events INCLUDING ALL); ALTER TABLE events ATTACH PARTITION made "
        "FOR VALUES FROM (20) TO (30); INSERT INTO events VALUES (1, 25); COMMIT; INSERT INTO events VALUES (2, 26)"
    ),
    "empty table attached": (
        "INSERT INTO staged VALUES (1, 25); TRUNCATE staged; "
        "ALTER TABLE staged ADD PRIMARY KEY (id, day); ALTER TABLE staged SET (fillfactor = 90); "
        f"{ATTACH}; INSERT INTO events VALUES (2, 26); GRANT SELECT ON staged TO PUBLIC"
    ),
    "default partition": "CREATE TABLE rest PARTITION OF events DEFAULT; INSERT INTO events VALUES (1, 99)",
    "truncate all": "TRUNCATE events; INSERT INTO events SELECT i, i % 20 FROM generate_series(1, 9) i",
    "truncate all often": (
        "TRUNCATE events; INSERT INTO events VALUES (1, 1), (2, 15); TRUNCATE events; INSERT INTO events VALUES (3, 3)"
    ),
    "truncate all in a savepoint": (
        "BEGIN; SAVEPOINT a; TRUNCATE events; RELEASE a; INSERT INTO events VALUES (1, 1); COMMIT"
    ),
    "truncate all, then maintenance": (
        "TRUNCATE events; INSERT INTO events VALUES (1, 1), (2, 15); VACUUM FULL events_1; VACUUM FULL events_2"
    ),
    "truncate one, then all": "TRUNCATE events_1; TRUNCATE events; INSERT INTO events VALUES (1, 1)",
    "rewritten files": "VACUUM FULL events; CLUSTER plain USING plain_pkey; VACUUM FULL plain",
    "indexes": "REINDEX TABLE events_1; CREATE INDEX ON events (v); REINDEX TABLE plain; ANALYZE events; VACUUM events",
    "other definitions": (
        "ALTER TABLE events ALTER v SET STATISTICS 10; GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC; "
        "ALTER TABLE events_1 SET (fillfactor = 90); ALTER TABLE plain ALTER v SET STORAGE EXTERNAL; VACUUM FULL plain"
    ),
    "truncate a plain table": (
        "BEGIN; TRUNCATE plain; ALTER TABLE plain ADD x int; INSERT INTO plain VALUES (1, 'new', 1, 1); COMMIT"
    ),
    "nested partitions": (
        "CREATE TABLE half PARTITION OF events FOR VALUES FROM (20) TO (30) PARTITION BY RANGE (day); "
        "CREATE TABLE half_1 PARTITION OF half FOR VALUES FROM (20) TO (25); INSERT INTO events VALUES (1, 21)"
    ),
    "partition renamed": "ALTER TABLE events_1 RENAME TO first; UPDATE events SET v = 'new' WHERE day < 3",
}


class Follower:
    """Runs a source again and again as the engine does, remembering what a target would: position and copies."""

    def __init__(self, database: Database, **options: Any) -> None:
        self.database, self.options = database, {"url": database.url, **options}
        self.position = Position("")
        self.copied: dict[TableId, Copied] = {}
        database.execute(TABLES)

    def copy(self, *names: str) -> None:
        """Copy tables, all of them the first time."""
        with self.opened() as opened:
            opened.set_up()
            snapshot = opened.snapshot() if self.position else opened.start()
            for table in opened.tables():
                if not names or table.name in names:
                    chunks = frozenset(chunk.name for chunk in snapshot.chunks(table, None))
                    self.copied[table.id] = Copied(snapshot.position, True, snapshot.note(table), chunks)
            self.position = self.position or snapshot.position

    def catch_up(self) -> None:
        """Start, stream what there is, and end."""
        with self.opened() as opened:
            opened.set_up(self.copied.keys(), self.position)
            for batch in opened.stream(self.position, self.copied, opened.current()):
                self.position = batch.position or self.position

    def catch_up_in_steps(self) -> None:
        """Stream what there is, with a new start after every position."""
        with self.opened() as opened:
            until = opened.current()
        while parse_position(self.position).lsn < parse_position(until).lsn:
            with self.opened(max_batch_rows=1) as opened:
                for batch in opened.stream(self.position, self.copied, until):
                    if batch.position is not None:
                        self.position = batch.position
                        break

    @contextmanager
    def streaming(self) -> Iterator[Iterator[Batch]]:
        """Start a stream without an end."""
        with self.opened() as opened:
            yield opened.stream(self.position, self.copied)

    @contextmanager
    def opened(self, max_batch_rows: int = 1000) -> Iterator[PostgresSource]:
        """Open the source."""
        tables = Selection(("public.events", "public.plain"))
        pipeline = Pipeline(self.database.name, tables, heartbeat_seconds=0.1, max_batch_rows=max_batch_rows)
        opened = PostgresSource(pipeline, SourceOptions.model_validate(self.options))
        try:
            yield opened
        finally:
            opened.close()

    def run(self, statements: str) -> None:
        """Run each statement by itself, so that each is a transaction of its own but for BEGIN and COMMIT."""
        with self.database.connect() as connection:
            for statement in statements.split("; "):
                connection.execute(statement.encode())

    def write(self) -> None:
        """Change both tables, so that there is something to stream."""
        self.run(
            "INSERT INTO events SELECT coalesce(max(id), 0) + 1, 15 FROM events; UPDATE plain SET w = 1 WHERE id = 1"
        )
