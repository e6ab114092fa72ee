"""Turns the driver's exceptions into cdcrep's five, by SQLSTATE, without row values.

SQLSTATE codes: PostgreSQL manual, appendix "PostgreSQL Error Codes". Only a server's primary message is kept: DETAIL,
CONTEXT and HINT hold values of rows, and so do some primary messages, from which they are cut.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import psycopg

from cdcrep.errors import CdcrepError, DataError, SetupError, TransientError, chain

Failure = type[CdcrepError]

BLOCKED: Final = (
    "see who keeps it waiting: SELECT pid, pg_blocking_pids(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
)

EXACT: Final[Mapping[str, tuple[Failure, str | None]]] = {
    "25006": (SetupError, "connect to the primary server: this one, or this role's sessions, cannot write"),
    "25P02": (TransientError, None),
    "25P03": (TransientError, None),
    "25P04": (TransientError, None),
    "28P01": (SetupError, "check the password in the URL, in password_file or in ~/.pgpass"),
    "42501": (SetupError, "GRANT the missing privilege to the role that cdcrep connects as; `cdcrep check` names it"),
    "42601": (SetupError, None),
    "53100": (TransientError, "the server's disk is full"),
    "53300": (TransientError, "raise max_connections (or max_wal_senders), or end sessions that are not needed"),
    "53400": (TransientError, "raise max_replication_slots, or drop slots that nobody uses"),
    "55000": (SetupError, "run `cdcrep check`"),
    "55006": (TransientError, "another process uses it; `SELECT * FROM pg_replication_slots` shows which"),
    "55P03": (TransientError, BLOCKED),
    "57014": (TransientError, BLOCKED),
    "57P04": (SetupError, None),
    "XX000": (TransientError, None),
}

CLASSES: Final[Mapping[str, tuple[Failure, str | None]]] = {
    "08": (TransientError, None),  # connection exception
    "0A": (SetupError, None),  # feature not supported
    "0B": (SetupError, None),  # invalid transaction initiation
    "0L": (SetupError, None),  # invalid grantor
    "0P": (SetupError, None),  # invalid role specification
    "21": (DataError, None),  # cardinality violation
    "22": (DataError, None),  # data exception
    "23": (DataError, None),  # integrity constraint violation
    "25": (SetupError, None),  # invalid transaction state
    "27": (DataError, None),  # triggered data change violation
    "28": (SetupError, "check user, password and the server's pg_hba.conf"),
    "2B": (SetupError, None),  # dependent privilege descriptors still exist
    "38": (SetupError, None),  # external routine exception
    "39": (SetupError, None),  # external routine invocation exception
    "3D": (SetupError, "check the database's name in the URL"),
    "3F": (SetupError, None),  # invalid schema name
    "40": (TransientError, None),  # transaction rollback: serialization failure, deadlock
    "42": (SetupError, None),  # syntax error or access rule violation
    "44": (DataError, None),  # WITH CHECK OPTION violation
    "53": (TransientError, None),  # insufficient resources
    "54": (DataError, None),  # program limit exceeded
    "55": (SetupError, None),  # object not in prerequisite state
    "57": (TransientError, None),  # operator intervention: shutdown, cancelled or timed-out statement
    "58": (TransientError, None),  # system error
    "72": (TransientError, None),  # snapshot failure
    "F0": (SetupError, None),  # configuration file error
    "HV": (SetupError, None),  # foreign data wrapper error
    "P0": (DataError, "a trigger or function on the server raised it"),
    "XX": (SetupError, "the server reports damaged data: see its log"),
}

ENUM_INPUT: Final = frozenset({"enum_in", "enum_recv"})
"""The server's functions that meet a label which an enum lacks; the message itself may be in any language."""

NEW_LABEL: Final = (
    TransientError,
    "the next attempt adds labels that are new at the source; one that was renamed there: "
    "ALTER TYPE … RENAME VALUE … TO … in the target",
)

PASSING: Final = re.compile(
    r"refused|timed? ?out|timeout|reset by peer|unreachable|closed the connection|starting up|shutting down"
    r"|recovery mode|not yet accepting|too many (clients|connections)|remaining connection slots|connection slots are"
    r"|max_wal_senders|broken pipe|temporary failure|no such file or directory|no route|connection is lost"
    r"|is closed|eof detected|unexpected eof|administrator command|could not receive|could not send|aborted",
    re.IGNORECASE,
)
"""Text of a failed or lost connection that may be over in a moment. libpq gives such errors no SQLSTATE."""

LASTING: Final[Mapping[re.Pattern[str], str]] = {
    re.compile(pattern, re.IGNORECASE): hint
    for pattern, hint in {
        r"root certificate file|sslrootcert|certificate|ssl error|tls": (
            "give the server's certificate authority: add ?sslrootcert=/path/ca.crt to the URL"
        ),
        r"does not support ssl|ssl was required": (
            "switch on ssl on the server, or set insecure = true to connect without encryption"
        ),
        r"pg_hba\.conf": "add a line for this user, database and address to the server's pg_hba.conf and reload it",
        r"password|authentication|scram": "check the password in the URL, in password_file or in ~/.pgpass",
        r"role .* does not exist|not permitted to log in": "check the user's name in the URL",
        r"database .* does not exist": "check the database's name in the URL",
        r"translate host name|name or service|resolve host": "check the host name in the URL",
        r"permission denied|must be superuser|replication attribute|start wal sender": (
            "give the role what it needs: ALTER ROLE … REPLICATION"
        ),
        r"invalid (connection option|sslmode|value|integer|uri)|unrecognized configuration parameter": (
            "check the parameters after '?' in the URL"
        ),
    }.items()
}
"""Text of a connection that will fail the same way next time, and what to do about it."""

VALUE: Final = re.compile(r'".*"|\'.*\'|0x[0-9a-f]+(?: 0x[0-9a-f]+)*|: .*$', re.IGNORECASE | re.DOTALL)


def translate(error: Exception, doing: str) -> CdcrepError:
    """Make the exception to raise instead of a driver's; `doing` completes "failed while": `reading public.orders`.

    Also cuts the driver's exception down to the same message, because it stays visible as the cause:
    `raise translate(error, "…") from error`; and likewise those that it followed.
    """
    if isinstance(error, CdcrepError):
        return error
    state = sqlstate(error)
    failure, hint = _classify(error, state)
    message = _message(error, state)
    for shown in chain(error):
        if isinstance(shown, psycopg.Error):
            shown.args = (_message(shown, sqlstate(shown)),)
    error.args = (message,)
    suffix = f" (SQLSTATE {state})" if state else ""
    return failure(f"{doing}: {message}{suffix}", hint=hint)


def sqlstate(error: Exception) -> str | None:
    """Return a driver exception's SQLSTATE, where the server gave one."""
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) and re.fullmatch(r"[0-9A-Z]{5}", state) and state != "00000" else None


def _classify(error: Exception, state: str | None) -> tuple[Failure, str | None]:
    if isinstance(error, psycopg.Error) and error.diag.source_function in ENUM_INPUT:
        return NEW_LABEL
    if state is not None:
        # A class that this table does not know would not go away by itself.
        return EXACT.get(state) or CLASSES.get(state[:2]) or (SetupError, None)
    text = str(error)
    if isinstance(error, OSError | EOFError) or PASSING.search(text):
        return TransientError, None
    if isinstance(error, psycopg.DataError):
        return DataError, None
    for pattern, hint in LASTING.items():
        if pattern.search(text):
            return SetupError, hint
    if isinstance(error, psycopg.ProgrammingError | psycopg.NotSupportedError):
        return SetupError, None
    return TransientError, None


def _message(error: Exception, state: str | None) -> str:
    """Return what the server or libpq said, on one line, without values."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    text = primary or str(error) or type(error).__name__
    text = text if state is None else text.splitlines()[0]
    place = _place(error)
    if state is not None and state.startswith("P0"):
        return f"an exception was raised by a trigger or function{place}"
    if isinstance(error, psycopg.DataError) or (state is not None and state.startswith("22")):
        text = VALUE.sub("…", text)
    return " ".join(text.split()) + place


def _place(error: Exception) -> str:
    """Name the table and column that the server names beside its message."""
    if not isinstance(error, psycopg.Error):
        return ""
    diag = error.diag
    table = ".".join(part for part in (diag.schema_name, diag.table_name) if part)
    names = (("table", table), ("column", diag.column_name), ("constraint", diag.constraint_name))
    known = [f"{what} {name}" for what, name in names if name]
    return f" [{', '.join(known)}]" if known else ""
