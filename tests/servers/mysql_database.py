"""One fresh database per test on a running MySQL or MariaDB server, dropped with its users afterwards."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pymysql

from tests.servers.mysql_binaries import Release


@dataclass(frozen=True)
class RunningMySQL:
    """A MySQL or MariaDB server that tests share; `dsn` is a superuser's URL."""

    release: Release
    dsn: str

    def connect(self, **parameters: Any) -> pymysql.Connection[Any]:
        """Open an autocommit connection; `parameters` (database, user, password…) override those of the dsn."""
        parts = urlsplit(self.dsn)
        given = {
            "host": parts.hostname,
            "port": parts.port or 3306,
            "user": unquote(parts.username or "root"),
            "password": unquote(parts.password or ""),
            "autocommit": True,
        }
        return pymysql.connect(**{**given, **parameters})

    def url(self, database: str, user: str | None = None, password: str | None = None) -> str:
        """Return the URL of a database on this server, as another user if one is given."""
        parts = urlsplit(self.dsn)
        scheme = "mariadb" if self.release.is_mariadb else "mysql"
        account = parts.netloc.rpartition("@")[0]
        if user is not None:
            account = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        return f"{scheme}://{account}@{parts.netloc.rpartition('@')[2]}/{quote(database, safe='')}"


@dataclass
class MySQLDatabase:
    """A fresh, empty database on a running server; other databases share the server's binary log."""

    server: RunningMySQL
    name: str
    users: list[str] = field(default_factory=list)

    @classmethod
    def create(cls, server: RunningMySQL) -> MySQLDatabase:
        """Create a database with a name never used before."""
        # Not from `random`, which pytest-randomly seeds alike for every test.
        name = f"test_{uuid.uuid4().hex[:12]}"
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return cls(server, name)

    @property
    def url(self) -> str:
        """The superuser's URL of this database."""
        return self.server.url(self.name)

    def connect(self, **parameters: Any) -> pymysql.Connection[Any]:
        """Open an autocommit connection to this database."""
        return self.server.connect(**{"database": self.name, **parameters})

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own and return its rows."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def create_user(self, privileges: str = "REPLICATION SLAVE, REPLICATION CLIENT", password: str = "secret") -> str:
        """Create a user with these global privileges, and SELECT on this database; return the name.

        The user is dropped with the database.
        """
        name = f"user_{uuid.uuid4().hex[:12]}"
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE USER {name}@'%%' IDENTIFIED BY %s", [password])
            cursor.execute(f"GRANT {privileges} ON *.* TO {name}@'%'")
            cursor.execute(f"GRANT SELECT ON {self.name}.* TO {name}@'%'")
        self.users.append(name)
        return name

    def url_as(self, user: str, password: str = "secret") -> str:
        """Return the URL with which a user of `create_user` connects."""
        return self.server.url(self.name, user, password)

    def drop(self) -> None:
        """End every session that uses this database or its users, and drop them."""
        with self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id, user, db FROM information_schema.processlist")
            for number, user, database in cursor.fetchall():
                if database == self.name or user in self.users:
                    _ignoring_ended(cursor, f"KILL {number}")
            cursor.execute(f"DROP DATABASE {self.name}")
            for user in self.users:
                cursor.execute(f"DROP USER {user}@'%'")


def _ignoring_ended(cursor: pymysql.cursors.Cursor, kill: str) -> None:
    try:
        cursor.execute(kill)
    except pymysql.OperationalError as error:
        if error.args[0] != pymysql.constants.ER.NO_SUCH_THREAD:
            raise
