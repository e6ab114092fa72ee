"""What the measurements ask of the servers of a run, whichever kind of database they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from bench.clusters import Cluster, Row
from bench.tables import Contents, Digest


class Server(Protocol):
    """One database server that is replicated from."""

    def execute(self, database: str, *statements: str) -> list[Row]:
        """Run statements on a connection of their own; rows of the last."""
        ...

    def url(self, database: str) -> str:
        """The superuser's URL of a database."""
        ...

    def create_database(self, name: str) -> None:
        """Create an empty database, in place of one of this name."""
        ...

    def drop_database(self, name: str) -> None:
        """Drop a database and what the server keeps for its consumers."""
        ...

    def settle(self, database: str) -> None:
        """Do now what would happen in its own time after much was written: statistics, vacuum."""
        ...

    def digest(self, database: str, tables: Sequence[Contents]) -> Digest:
        """Digest tables that nobody writes."""
        ...

    def slots(self, database: str) -> set[str]:
        """Names of what the server keeps for each consumer; empty where it keeps nothing."""
        ...

    def slot_is_active(self, slot: str) -> bool:
        """Is the server sending to this slot's consumer, or to any where there are no slots?"""
        ...

    def end_stream(self, slot: str) -> None:
        """Wait until the server has noticed that this slot's consumer is gone, or see to it."""
        ...


class Servers(Protocol):
    """The servers of a run, and a directory for files."""

    @property
    def source(self) -> Server:
        """What is replicated from."""
        ...

    @property
    def target(self) -> Cluster:
        """The PostgreSQL cluster that is replicated into."""
        ...

    @property
    def files(self) -> Path:
        """A directory that is gone afterwards."""
        ...

    def checkpoint(self) -> None:
        """Write out what the servers have in memory now, so that it does not fall into the next measurement."""
        ...

    def processes(self) -> Iterator[tuple[int, str]]:
        """Find the servers' processes that work for consumers, each with its role."""
        ...
