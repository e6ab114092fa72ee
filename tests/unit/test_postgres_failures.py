"""Which of the five errors a PostgreSQL failure becomes, and that no value survives in it."""

from __future__ import annotations

import psycopg
import pytest

from cdcrep.errors import CdcrepError, DataError, SetupError, TransientError
from cdcrep_connectors.postgres.failures import CLASSES, EXACT, translate


def server_error(state: str, message: str) -> psycopg.Error:
    try:
        kind = psycopg.errors.lookup(state)
    except KeyError:
        kind = psycopg.DatabaseError
    error = kind(message)
    error.sqlstate = state
    return error


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("08006", TransientError),
        ("40001", TransientError),
        ("40P01", TransientError),
        ("53100", TransientError),
        ("53300", TransientError),
        ("55006", TransientError),
        ("55P03", TransientError),
        ("57014", TransientError),
        ("57P01", TransientError),
        ("57P03", TransientError),
        ("58030", TransientError),
        ("0A000", SetupError),
        ("28P01", SetupError),
        ("28000", SetupError),
        ("3D000", SetupError),
        ("42501", SetupError),
        ("42704", SetupError),
        ("42P01", SetupError),
        ("55000", SetupError),
        ("25006", SetupError),
        ("21000", DataError),
        ("22003", DataError),
        ("22P02", DataError),
        ("23502", DataError),
        ("23505", DataError),
        ("54000", DataError),
        ("P0001", DataError),
        ("ZZ999", SetupError),
    ],
)
def test_every_sqlstate_has_its_error(state: str, expected: type[CdcrepError]) -> None:
    assert type(translate(server_error(state, "x"), "testing")) is expected


def test_the_tables_name_only_codes_of_the_right_length() -> None:
    assert {len(code) for code in EXACT} == {5}
    assert {len(code) for code in CLASSES} == {2}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("22P02", 'invalid input syntax for type integer: "canary"'),
        ("22P02", 'malformed array literal: "{canary"'),
        ("22003", 'value "canary" is out of range for type integer'),
        ("22007", 'invalid input syntax for type date: "ca"nary"'),
        ("22021", 'invalid byte sequence for encoding "UTF8": 0xca 0x4a'),
        ("22001", "value too long: canary"),
        ("P0001", "no canary allowed"),
        ("23505", "duplicate key\nDETAIL:  Key (a)=(canary) already exists."),
    ],
)
def test_no_value_survives_in_message_or_cause(state: str, message: str) -> None:
    error = server_error(state, message)

    translated = translate(error, "copying public.t")

    assert "canary" not in f"{translated}{translated.hint}{error}"
    assert "0xca" not in str(translated)
    assert "copying public.t" in str(translated)


@pytest.mark.parametrize(
    "text",
    [
        'connection to server at "10.0.0.1", port 5432 failed: Connection refused',
        "consuming input failed: server closed the connection unexpectedly",
        "connection timeout expired",
        "could not receive data from server: Connection reset by peer",
        "failed to resolve host 'db': [Errno -3] Temporary failure in name resolution",
        "FATAL:  the database system is starting up",
        "FATAL:  sorry, too many clients already",
        "the connection is closed",
    ],
)
def test_a_lost_connection_is_tried_again(text: str) -> None:
    assert type(translate(psycopg.OperationalError(text), "connecting")) is TransientError


@pytest.mark.parametrize(
    "text",
    [
        'FATAL:  password authentication failed for user "u"',
        "fe_sendauth: no password supplied",
        'FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "u", database "d", no encryption',
        'FATAL:  database "d" does not exist',
        'FATAL:  role "u" does not exist',
        "failed to resolve host 'h': [Errno -2] Name or service not known",
        "SSL error: certificate verify failed",
        "server does not support SSL, but SSL was required",
        "FATAL:  permission denied to start WAL sender",
    ],
)
def test_a_refused_connection_comes_with_a_hint(text: str) -> None:
    translated = translate(psycopg.OperationalError(text), "connecting")

    assert type(translated) is SetupError
    assert translated.hint


def test_our_own_errors_pass_unchanged() -> None:
    error = DataError("as it is")

    assert translate(error, "testing") is error
