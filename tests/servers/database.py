"""One fresh database per test on a running PostgreSQL server, dropped with its slots and roles afterwards."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.servers.waiting import wait_until


@dataclass(frozen=True)
class RunningServer:
    """A PostgreSQL server that tests share; `dsn` is a superuser's connection string, in either of libpq's forms."""

    major: int
    dsn: str

    def connect(self, **parameters: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """Open an autocommit connection; `parameters` (dbname, user…) override those of the dsn."""
        return psycopg.connect(make_conninfo(self.dsn, **parameters), autocommit=True)

    def url(self, **parameters: Any) -> str:
        """Return the server's URL with `parameters` (dbname, user, password, host, port) in place of the dsn's own."""
        values = {**conninfo_to_dict(self.dsn), **parameters}
        user, host, port, name = (values.pop(key, "") for key in ("user", "host", "port", "dbname"))
        password = values.pop("password", None)
        secret = f":{quote(str(password), safe='')}" if password else ""
        options = f"?{urlencode(values)}" if values else ""
        return f"postgresql://{quote(str(user))}{secret}@{host}:{port}/{quote(str(name), safe='')}{options}"


@dataclass
class Database:
    """A fresh, empty database on a running server."""

    server: RunningServer
    name: str
    roles: list[str] = field(default_factory=list)

    @classmethod
    def create(cls, server: RunningServer) -> Database:
        """Create a database with a name never used before."""
        # Not from `random`, which pytest-randomly seeds alike for every test.
        name = f"test_{uuid.uuid4().hex[:12]}"
        with server.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        return cls(server, name)

    @property
    def url(self) -> str:
        """The superuser's URL of this database."""
        return self.server.url(dbname=self.name)

    @property
    def dsn(self) -> str:
        """The superuser's connection string of this database, in libpq's keyword form."""
        return make_conninfo(self.server.dsn, dbname=self.name)

    def connect(self, **parameters: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """Open an autocommit connection to this database."""
        return self.server.connect(dbname=self.name, **parameters)

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement (or several, without values) on a connection of its own; rows of the last, if any."""
        with self.connect() as connection:
            cursor = connection.execute(statement.encode(), values or None)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def create_role(self, attributes: str = "LOGIN REPLICATION") -> str:
        """Create a role that is dropped with this database; return its name."""
        name = f"role_{uuid.uuid4().hex[:12]}"
        with self.server.connect() as connection:
            connection.execute(f"CREATE ROLE {name} {attributes}".encode())
        self.roles.append(name)
        return name

    def url_as(self, role: str, password: str | None = None) -> str:
        """Return the URL with which a role of `create_role` connects."""
        return self.server.url(dbname=self.name, user=role, password=password)

    def drop(self) -> None:
        """End every session on this database, drop its slots, itself and its roles."""
        with self.server.connect() as connection:
            wait_until(lambda: self._slots_are_dropped(connection), what=f"slots of {self.name} gone")
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self.name)))
            for role in self.roles:
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))

    def _slots_are_dropped(self, connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self.name])
        slots = connection.execute(
            "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = %s", [self.name]
        ).fetchall()
        for name, active_pid in slots:
            if active_pid is None:
                try:
                    connection.execute("SELECT pg_drop_replication_slot(%s)", [name])
                except (psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
                    continue  # its session came back, or dropped it, in between: look again
        return not slots
