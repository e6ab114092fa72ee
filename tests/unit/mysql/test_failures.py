"""Which of the five errors a failure of MySQL or MariaDB becomes, and that no value survives in it."""

from __future__ import annotations

import socket
import ssl

import pymysql
import pytest

from cdcrep.errors import CdcrepError, DataError, DivergedError, SetupError, TransientError
from cdcrep_connectors.mysql import failures
from cdcrep_connectors.mysql.failures import translate
from cdcrep_connectors.mysql.replication import server_error


def failure(number: int, message: str = "x", state: str = "HY000") -> CdcrepError:
    return server_error(b"\xff" + number.to_bytes(2, "little") + b"#" + state.encode() + message.encode())


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1040, TransientError),
        (1053, TransientError),
        (1114, TransientError),
        (1205, TransientError),
        (1213, TransientError),
        (1317, TransientError),
        (1927, TransientError),
        (1969, TransientError),
        (3024, TransientError),
        (4031, TransientError),
        (1044, SetupError),
        (1045, SetupError),
        (1049, SetupError),
        (1064, SetupError),
        (1142, SetupError),
        (1146, SetupError),
        (1227, SetupError),
        (1290, SetupError),
        (1836, SetupError),
        (3159, SetupError),
        (9999, SetupError),
        (1048, DataError),
        (1062, DataError),
        (1153, DataError),
        (1264, DataError),
        (1366, DataError),
        (1406, DataError),
        (1452, DataError),
        (1644, DataError),
        (3140, DataError),
        (3819, DataError),
        (4025, DataError),
    ],
)
def test_every_number_has_its_error(number: int, expected: type[CdcrepError]) -> None:
    assert type(failure(number)) is expected


def test_no_number_is_in_two_tables() -> None:
    tables = [set(failures.HINTED), failures.PASSING, failures.LASTING, failures.REFUSED_DATA]

    assert sum(map(len, tables)) == len(set().union(*tables))


@pytest.mark.parametrize(
    ("state", "expected"), [("08S01", TransientError), ("40001", TransientError), ("22007", DataError)]
)
def test_an_unknown_number_is_judged_by_its_sqlstate(state: str, expected: type[CdcrepError]) -> None:
    assert type(failure(8888, "x", state)) is expected


@pytest.mark.parametrize(
    ("number", "message", "kept"),
    [
        (1062, "Duplicate entry 'canary' for key 'orders.PRIMARY'", "for key 'orders.PRIMARY'"),
        (1062, "Duplicate entry 'x' for key 'canary' for key 'orders.by_name'", "for key 'orders.by_name'"),
        (1366, "Incorrect integer value: 'canary' for column 'price' at row 1", "for column 'price' at row 1"),
        (1366, "Incorrect string value: '\\xCAcanary' for column `s`.`t`.`c` at row 7", "column `s`.`t`.`c` at row 7"),
        (1292, "Incorrect datetime value: 'canary' for column 'a' at row 1", "for column 'a' at row 1"),
        (1292, 'Truncated incorrect DOUBLE value: "canary', "Truncated incorrect DOUBLE value"),
        (1264, "Out of range value for column 'price' at row 1", "column 'price' at row 1"),
        (1406, "Data too long for column 'name' at row 3", "column 'name' at row 3"),
        (1048, "Column 'name' cannot be null", "Column 'name'"),
        (1064, "You have an error in your SQL syntax near 'VALUES (''canary'')' at line 1", "SQL syntax"),
        (1690, "BIGINT value is out of range in '(canary + 5)'", "out of range"),
        (1644, "no canary allowed", "trigger"),
        (9999, "never heard of 'canary'", "never heard of"),
        (1146, "Table 'shop.orders' doesn't exist", "'shop.orders'"),
        (1054, "Unknown column 'price' in 'field list'", "'price'"),
        (1142, "SELECT command denied to user 'u'@'h' for table 'orders'", "'orders'"),
    ],
)
def test_names_are_kept_and_values_are_not(number: int, message: str, kept: str) -> None:
    translated = failure(number, message)

    shown = f"{translated}{translated.hint}"
    assert "canary" not in shown
    assert kept in shown
    assert f"(error {number})" in shown


def test_no_value_survives_in_the_cause() -> None:
    error = pymysql.IntegrityError(1062, "Duplicate entry 'canary' for key 'PRIMARY'")

    translated = translate(error, "copying shop.orders")

    assert "canary" not in f"{error}{error.args}"
    assert str(translated).startswith("copying shop.orders: ")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Could not find first log file name in binary log index file", DivergedError),
        (
            "Cannot replicate because the source purged required binary logs. Replicate the missing transactions from "
            "elsewhere, or provision a new replica from backup.",
            DivergedError,
        ),
        (
            "Replica has more GTIDs than the source has, using the source's SERVER_UUID. This may indicate that the "
            "end of the binary log was truncated or that the last binary log file was lost",
            DivergedError,
        ),
        (
            "Error: connecting slave requested to start from GTID 0-1-99, which is not in the master's binlog",
            DivergedError,
        ),
        (
            "Could not find GTID state requested by slave in any binlog files. Probably the slave state is too old and "
            "required binlog files have been purged.",
            DivergedError,
        ),
        ("Client requested source to start replication from position > file size", DivergedError),
        (
            "A replica with the same server_uuid/server_id as this replica has connected to the source; the first "
            "event 'binlog.000001' at 4",
            SetupError,
        ),
        ("A slave with the same server_uuid/server_id as this slave has connected to the master", SetupError),
        ("Binary log is not open", SetupError),
        ("log event entry exceeded max_allowed_packet; Increase max_allowed_packet on source", SetupError),
        ("event read from binlog did not pass crc check", DataError),
        ("something that nobody has read before", DivergedError),
    ],
)
def test_the_end_of_a_binary_log_is_judged_by_its_text(message: str, expected: type[CdcrepError]) -> None:
    translated = failure(1236, message)

    assert type(translated) is expected
    assert message.partition(";")[0] in str(translated)


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        (ConnectionRefusedError(111, "Connection refused"), TransientError),
        (TimeoutError("timed out"), TransientError),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), TransientError),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), SetupError),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), SetupError),
        (ssl.SSLError(1, "wrong version number"), SetupError),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), TransientError),
    ],
)
def test_a_connection_that_fails_is_judged_by_its_cause(original: OSError, expected: type[CdcrepError]) -> None:
    error = pymysql.OperationalError(2003, "Can't connect")
    error.__cause__ = original

    assert type(translate(error, "connecting")) is expected


def test_a_request_for_a_local_file_is_explained() -> None:
    translated = translate(RuntimeError("**WARN**: Received LOAD_LOCAL packet but local_infile option is false."), "x")

    assert type(translated) is SetupError
    assert "file of this machine" in str(translated)


def test_an_error_packet_that_cannot_be_read_is_an_error_all_the_same() -> None:
    assert type(server_error(b"\xff")) is TransientError
