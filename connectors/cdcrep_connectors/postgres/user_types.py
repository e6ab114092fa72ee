"""Creates in the target the enums, domains, composites and ranges that the source's columns need; adds labels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import psycopg
from psycopg import pq

from cdcrep.errors import SetupError
from cdcrep.table import ColumnType, Table, UserType
from cdcrep_connectors.postgres.column_types import DIALECT, column_type
from cdcrep_connectors.postgres.session import Session
from cdcrep_connectors.relational.names import qualify, quote

EXISTS: Final = (
    "SELECT t.oid FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = $1 AND t.typname = $2"
)


LABELS: Final = (
    "SELECT e.enumlabel FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid JOIN pg_namespace n "
    "ON n.oid = t.typnamespace WHERE n.nspname = $1 AND t.typname = $2 ORDER BY e.enumsortorder"
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
    """Create the user types that the target lacks; say what was done. An enum gets the labels that it lacks.

    Raises:
        SetupError: an enum lacks labels and has others instead, as after renaming.
    """
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
    present = [label for (label,) in session.fetch(LABELS, user.schema, user.name)]
    missing = [label for label in user.labels if label not in present]
    if not missing:
        return []
    if others := [label for label in present if label not in user.labels]:
        raise _renamed(user, missing, others)
    with _outside_of_transactions(session) as execute:
        for label in missing:
            execute(
                f"ALTER TYPE {qualify(user.schema, user.name)} ADD VALUE IF NOT EXISTS {_place(user, label, present)}"
            )
    return [f"added {len(missing)} label(s) to type {user.schema}.{user.name}"]


def _place(user: UserType, label: str, present: Sequence[str]) -> str:
    """Write a label and where it belongs; those before it are there already."""
    number = user.labels.index(label)
    if number:
        return f"{_literal(label)} AFTER {_literal(user.labels[number - 1])}"
    return f"{_literal(label)} BEFORE {_literal(present[0])}" if present else _literal(label)


@contextlib.contextmanager
def _outside_of_transactions(session: Session) -> Iterator[Callable[[str], object]]:
    """Offer to run statements that commit at once: a new label may not be used in the transaction that adds it."""
    info = session.connection.info
    if info.transaction_status == pq.TransactionStatus.IDLE:
        yield session.execute
        return
    # The parameters of the session, but for its password.
    with psycopg.connect(info.dsn, password=info.password or None, autocommit=True) as connection:
        yield lambda statement: connection.execute(statement.encode())


def _renamed(user: UserType, missing: Sequence[str], others: Sequence[str]) -> SetupError:
    """Refuse to add a label that may be the new name of another one, under which older rows would have to stand."""
    name = qualify(user.schema, user.name)
    rename = f"ALTER TYPE {name} RENAME VALUE {_literal(others[0])} TO {_literal(missing[0])};  -- if it was renamed"
    add = f"ALTER TYPE {name} ADD VALUE {_place(user, missing[0], others)};  -- if it is new"
    return SetupError(
        f"type {user.schema}.{user.name} of the target lacks the labels {', '.join(map(repr, missing))} "
        f"of the source's and has {', '.join(map(repr, others))} instead",
        hint=f"in the target:\n{rename}\n{add}",
    )


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
