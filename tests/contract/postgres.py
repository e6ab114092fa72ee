"""How the contract suites reach PostgreSQL: statements as SQL, rows as text."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from cdcrep.connector import Pipeline, Sink, Source
from cdcrep.position import Position
from cdcrep.table import Table, TableId
from cdcrep.testing.memory import AddColumn, Delete, Insert, Truncate, Update
from cdcrep.testing.memory_tables import Row, Statement, Value, table_id
from cdcrep_connectors.postgres.options import ServerOptions, SourceOptions
from cdcrep_connectors.postgres.sink import PostgresSink
from cdcrep_connectors.postgres.source import PostgresSource
from tests.servers.database import Database


class PostgresTarget:
    """A fresh database to replicate into."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def sink(self, pipeline: Pipeline) -> Sink:
        return PostgresSink(pipeline, ServerOptions.model_validate({"url": self.database.url}))

    def rows(self, table: Table) -> list[Row]:
        return read(self.database, table)

    def execute(self, statement: str) -> None:
        self.database.execute(statement)

    def drop(self, table: Table) -> None:
        with self.database.connect() as connection:
            connection.execute(sql.SQL("DROP TABLE {}").format(identifier(table.id)))

    def close(self) -> None:
        pass


class PostgresOrigin:
    """A fresh database to replicate from."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.database.execute("CREATE SCHEMA shop")

    def source(self, pipeline: Pipeline) -> Source:
        return PostgresSource(
            pipeline, SourceOptions.model_validate({"url": self.database.url, "chunk_bytes": 1 << 20})
        )

    def create(self, table: Table, unsent: Sequence[str] = ()) -> None:
        columns = [
            sql.SQL("{} {}{}").format(
                sql.Identifier(column.name),
                sql.SQL(column.type.native),
                sql.SQL("" if column.nullable else " NOT NULL"),
            )
            for column in table.columns
        ]
        if table.key:
            columns.append(sql.SQL("PRIMARY KEY ({})").format(sql.SQL(", ").join(map(sql.Identifier, table.key))))
        with self.database.connect() as connection:
            name = identifier(table.id)
            connection.execute(sql.SQL("CREATE TABLE {} ({})").format(name, sql.SQL(", ").join(columns)))
            if not table.key:
                connection.execute(sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(name))
            for column in unsent:
                connection.execute(
                    sql.SQL("ALTER TABLE {} ALTER {} SET STORAGE EXTERNAL").format(name, sql.Identifier(column))
                )

    def commit(self, *statements: Statement) -> None:
        with self.database.connect() as connection, connection.transaction():
            run(connection, statements)

    def roll_back(self, *statements: Statement) -> None:
        with self.database.connect() as connection, connection.transaction(force_rollback=True):
            run(connection, statements)

    def rows(self, table: Table) -> list[Row]:
        return read(self.database, table)

    def foreign_position(self, position: Position) -> Position:
        kind, system, *rest = position.split("/", 2)
        return Position("/".join([kind, str(int(system) + 1), *rest]))

    def close(self) -> None:
        pass


def run(connection: psycopg.Connection[tuple[object, ...]], statements: Sequence[Statement]) -> None:
    """Run statements in the connection's transaction."""
    for statement in statements:
        name = identifier(table_id(statement.table))
        match statement:
            case Insert(_, row):
                names = sql.SQL(", ").join(map(sql.Identifier, row))
                places = sql.SQL(", ").join(sql.Placeholder() * len(row))
                connection.execute(
                    sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(name, names, places), list(row.values())
                )
            case Update(_, where, to):
                assignments = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in to)
                condition, values = one_row(name, where)
                connection.execute(
                    sql.SQL("UPDATE {} SET {} WHERE {}").format(name, assignments, condition), [*to.values(), *values]
                )
            case Delete(_, where):
                condition, values = one_row(name, where)
                connection.execute(sql.SQL("DELETE FROM {} WHERE {}").format(name, condition), values)
            case Truncate(_):
                connection.execute(sql.SQL("TRUNCATE {}").format(name))
            case AddColumn(_, column):
                connection.execute(
                    sql.SQL("ALTER TABLE {} ADD {} {}").format(
                        name, sql.Identifier(column.name), sql.SQL(column.type.native)
                    )
                )


def one_row(name: sql.Composable, where: dict[str, Value] | object) -> tuple[sql.Composable, list[Value]]:
    """Return the condition that finds one of the rows with these values."""
    assert isinstance(where, dict)
    wanted = sql.SQL(" AND ").join(sql.SQL("{}::text = %s").format(sql.Identifier(column)) for column in where)
    condition = sql.SQL("ctid = (SELECT ctid FROM {} WHERE {} LIMIT 1)").format(name, wanted)
    return condition, list(where.values())


def read(database: Database, table: Table) -> list[Row]:
    """Read a table's rows as text."""
    columns = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(column.name)) for column in table.columns)
    with database.connect() as connection:
        return connection.execute(sql.SQL("SELECT {} FROM {}").format(columns, identifier(table.id))).fetchall()


def identifier(table: TableId) -> sql.Composable:
    """Quote a table's name."""
    return sql.Identifier(table.schema, table.name)
