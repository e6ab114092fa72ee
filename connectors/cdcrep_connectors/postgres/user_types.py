"""Creates in the target the enums, domains, composites and ranges that the source's columns need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from cdcrep.table import ColumnType, Table, UserType
from cdcrep_connectors.postgres.column_types import DIALECT, column_type
from cdcrep_connectors.postgres.session import Session
from cdcrep_connectors.relational.names import qualify, quote

EXISTS: Final = (
    "SELECT t.oid FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = $1 AND t.typname = $2"
)


def needed(tables: Iterable[Table]) -> list[UserType]:
    """List the user types of the tables' columns, each after those it is made of."""
    found: dict[UserType, None] = {}
    for table in tables:
        if table.dialect == DIALECT:
            for column in table.columns:
                found.update(dict.fromkeys(_of(column.type)))
    return list(found)


def _of(type_: ColumnType) -> Iterator[UserType]:
    if type_.element is not None:
        yield from _of(type_.element)
    if (user := type_.user_type) is not None:
        for part in ([user.base] if user.base else []) + [type_ for _, type_ in user.fields]:
            yield from _of(part)
        yield user


def create_missing(session: Session, tables: Iterable[Table]) -> list[str]:
    """Create the user types that the target lacks; say what was done. An enum gets the labels that it lacks."""
    done = []
    for user in needed(tables):
        found = session.fetch(EXISTS, user.schema, user.name)
        if not found:
            session.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(user.schema)}")
            session.execute(definition(user))
            done.append(f"created type {user.schema}.{user.name}")
        elif user.variety == "enum":
            done += _add_labels(session, user)
    return done


def _add_labels(session: Session, user: UserType) -> list[str]:
    name = qualify(user.schema, user.name)
    present = {
        label
        for (label,) in session.fetch(
            "SELECT e.enumlabel FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid "
            "JOIN pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = $1 AND t.typname = $2",
            user.schema,
            user.name,
        )
    }
    added, after = [], None
    for label in user.labels:
        if label not in present:
            place = f" AFTER {_literal(after)}" if after is not None else ""
            session.execute(f"ALTER TYPE {name} ADD VALUE IF NOT EXISTS {_literal(label)}{place}")
            added.append(f"added a label to type {user.schema}.{user.name}")
        after = label
    return added


def definition(user: UserType) -> str:
    """Return the statement that creates a type, written from the model: the source's own DDL is never executed."""
    name = qualify(user.schema, user.name)
    match user.variety:
        case "enum":
            return f"CREATE TYPE {name} AS ENUM ({', '.join(map(_literal, user.labels))})"
        case "composite":
            fields = ", ".join(f"{quote(field)} {column_type(type_, DIALECT)}" for field, type_ in user.fields)
            return f"CREATE TYPE {name} AS ({fields})"
        case "domain":
            assert user.base is not None
            return f"CREATE DOMAIN {name} AS {column_type(user.base, DIALECT)}"
        case "range":
            assert user.base is not None
            return f"CREATE TYPE {name} AS RANGE (SUBTYPE = {column_type(user.base, DIALECT)})"


def _literal(text: str) -> str:
    # standard_conforming_strings is on in our sessions: a backslash is a backslash.
    return "'" + text.replace("'", "''") + "'"
