"""Turns the driver's exceptions into cdcrep's five, by error number, without row values.

MySQL manual, "Server Error Message Reference" and "Client Error Message Reference"; MariaDB, "MariaDB Error Code
Reference". Messages of the server quote values and pieces of statements: only those known to quote names are kept.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping
from typing import Final

import pymysql

from cdcrep.errors import CdcrepError, DataError, DivergedError, SetupError, TransientError, chain

Failure = type[CdcrepError]

DRIVER_ERRORS: Final = (pymysql.MySQLError, OSError, RuntimeError)
"""What the driver raises. RuntimeError: the server asked for a local file, or a package is missing."""

BINLOG_ERROR: Final = 1236
"""ER_SOURCE_FATAL_ERROR_READING_BINLOG, whose text says what happened."""

_GRANT: Final = "GRANT the missing privilege to the user that cdcrep connects as; `cdcrep check` names it"
_LOGIN: Final = "check user and password in the URL or in password_file, and from where the user may connect"
_READ_ONLY: Final = "connect to a server that is not read-only"
_CONNECTIONS: Final = "raise max_connections on the server, or end sessions that are not needed"
SAME_SERVER_ID: Final = (
    "another replica or another cdcrep uses the same server_id: set server_id in [source] to a number that "
    "SHOW REPLICAS (MariaDB: SHOW REPLICA HOSTS) does not list"
)
_FULL: Final = "the server's disk, or a limit of its tables, is full"

HINTED: Final[Mapping[int, tuple[Failure, str]]] = {
    1021: (TransientError, _FULL),
    1040: (TransientError, _CONNECTIONS),
    1044: (SetupError, _GRANT),
    1045: (SetupError, _LOGIN),
    1049: (SetupError, "check the database's name in the URL"),
    1114: (TransientError, _FULL),
    1118: (SetupError, "the target's row format cannot hold rows of this size: leave out columns"),
    1129: (SetupError, "FLUSH HOSTS on the server; it blocked this machine after too many failed connections"),
    1130: (SetupError, _LOGIN),
    1142: (SetupError, _GRANT),
    1143: (SetupError, _GRANT),
    1153: (DataError, "raise max_allowed_packet on the server, up to 1G"),
    1203: (TransientError, _CONNECTIONS),
    1226: (TransientError, "the user's limit of connections or statements is reached"),
    1227: (SetupError, _GRANT),
    1290: (SetupError, _READ_ONLY),
    1370: (SetupError, _GRANT),
    1406: (
        DataError,
        "the target's column is shorter: make it wider, or where it is part of a key, which an index limits, change "
        "the value at the source or leave the table out",
    ),
    1412: (
        TransientError,
        "the table was truncated or altered after the copy had begun: let it be until the copy is done, or leave it "
        "out until then",
    ),
    1698: (SetupError, _LOGIN),
    1792: (SetupError, _READ_ONLY),
    1820: (SetupError, "the user's password has expired: ALTER USER … IDENTIFIED BY …"),
    1836: (SetupError, _READ_ONLY),
    1862: (SetupError, "the user's password has expired: ALTER USER … IDENTIFIED BY …"),
    2026: (SetupError, "give the server's certificate authority: add ?ssl-ca=/path/ca.pem to the URL"),
    2059: (SetupError, "use an account with caching_sha2_password, mysql_native_password or ed25519"),
    3118: (SetupError, "the account is locked: ALTER USER … ACCOUNT UNLOCK"),
    4052: (SetupError, SAME_SERVER_ID),
    3159: (SetupError, "the server wants encryption: add ?ssl-mode=VERIFY_IDENTITY&ssl-ca=/path/ca.pem to the URL"),
}

PASSING: Final = frozenset(
    {
        *(1020, 1028, 1037, 1038, 1041, 1042, 1043, 1053, 1077, 1078, 1079, 1080, 1152),
        *(1158, 1159, 1160, 1161, 1180, 1184, 1188, 1189, 1190, 1205, 1206, 1213, 1317),
        *(1613, 1614, 1637, 1927, 1969, 2002, 2003, 2005, 2006, 2012, 2013, 2014, 2055),
        *(3024, 3101, 3168, 3170, 3572, 4031, 4032),
    }
)
"""Lost connections, shutdowns, deadlocks, time limits, memory: over in a moment."""

LASTING: Final = frozenset(
    {
        *(1007, 1008, 1046, 1050, 1051, 1054, 1059, 1060, 1061, 1064, 1068, 1069, 1071, 1072, 1074, 1091, 1101, 1102),
        *(1103, 1113, 1115, 1146, 1148, 1149, 1170, 1193, 1194, 1195, 1210, 1220, 1231, 1235, 1238, 1286, 1305, 1364),
        *(1381, 1419, 1449, 1459, 1524, 1728, 1785, 2027, 2054, 2061, 3948, 4166),
    }
)
"""The database is not as it must be; the same statement would fail again."""

REFUSED_DATA: Final = frozenset(
    {
        *(1022, 1048, 1062, 1136, 1169, 1216, 1217, 1263, 1264, 1265, 1292, 1366, 1367, 1390, 1411, 1441, 1451),
        *(1452, 1525, 1557, 1586, 1644, 1690, 1761, 1762, 3140, 3141, 3143, 3144, 3146, 3156, 3157, 3617, 3636, 3730),
        *(3819, 3854, 3903, 3995, 4025, 4038, 4161),
    }
)
"""The values of a row are not acceptable."""

CLASSES: Final[Mapping[str, Failure]] = {
    "08": TransientError,
    "21": DataError,
    "22": DataError,
    "23": DataError,
    "28": SetupError,
    "40": TransientError,
    "42": SetupError,
    "45": DataError,
    "53": TransientError,
    "70": TransientError,
}
"""By the first two characters of the SQLSTATE, for numbers that no table knows."""

BINLOG_FAILURES: Final[Mapping[re.Pattern[str], tuple[Failure, str]]] = {
    re.compile(pattern, re.IGNORECASE | re.DOTALL): answer
    for pattern, answer in {
        r"same server_uuid/server_id": (SetupError, SAME_SERVER_ID),
        r"not open|server_id was not set|log_bin|binary logging": (
            SetupError,
            "switch on the binary log: log_bin and server_id in the server's configuration",
        ),
        r"max_allowed_packet": (SetupError, "SET GLOBAL max_allowed_packet = 1073741824 on the source"),
        r"checksum that": (SetupError, "SET GLOBAL binlog_checksum = CRC32 on the source"),
        r"GTID_MODE|AUTO_POSITION": (SetupError, "SET GLOBAL gtid_mode = ON on the source"),
        r"net_write_timeout|shutdown|killed|client is stopped|being stopped": (TransientError, ""),
        r"bogus data|truncated in the middle|crc check|error reading log|corrupt": (
            DataError,
            "the server's binary log is damaged: mysqlbinlog --verify-binlog-checksum tells where",
        ),
        r"purged|could not find first log|missing|not in the .*binlog|is not found|impossible position|file size"
        r"|more GTIDs|diverged|errant|could not find GTID|GTID state": (
            DivergedError,
            "the source does not have the changes after the target's position any more: copy the tables anew, "
            "cdcrep backfill",
        ),
    }.items()
}
"""What the server says when it ends a binary log's stream."""

NAMES_ONLY: Final = frozenset(HINTED) | LASTING - {1064, 1149, 1231} | {1048, 1264, 1265, 1364, BINLOG_ERROR}
"""Errors whose messages quote names and no values."""

TRIGGERED: Final = frozenset({1644})
"""SIGNAL in a trigger or procedure, whose message may be anything."""

PLACE: Final = re.compile(
    r" (?:for|in|of) (?:column|key|CONSTRAINT) (?:'[^']*'|`[^`]*`(?:\.`[^`]*`)*)(?: at row \d+)?\.?$"
)
QUOTED: Final = re.compile(r"(?:'.*'|\".*\"|0x[0-9a-f]+|'.*$|\".*$)", re.IGNORECASE | re.DOTALL)


def translate(error: Exception, doing: str) -> CdcrepError:
    """Make the exception to raise instead of a driver's; `doing` completes "failed while": `reading shop.orders`.

    Also cuts the driver's exception down to the same message, because it stays visible as the cause:
    `raise translate(error, "…") from error`; and likewise those that it followed.
    """
    if isinstance(error, CdcrepError):
        return error
    number = error_number(error)
    failure, hint = _classify(error, number)
    message = _message(error)
    for shown in chain(error):
        if isinstance(shown, pymysql.MySQLError):
            shown.args = (error_number(shown) or 0, _message(shown))
        # The driver keeps a formatted traceback of what it followed.
        shown.__dict__.pop("traceback", None)
    return failure(f"{doing}: {message}{f' (error {number})' if number else ''}", hint=hint or None)


def error_number(error: BaseException) -> int | None:
    """Return a driver exception's error number, where it has one."""
    number = error.args[0] if isinstance(error, pymysql.MySQLError) and error.args else None
    # The driver reads the server's 16 bits as a signed number.
    return number & 0xFFFF if isinstance(number, int) and number else None


def _classify(error: Exception, number: int | None) -> tuple[Failure, str]:
    cause = _original(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return SetupError, "give the server's certificate authority and its real host name: ?ssl-ca=/path/ca.pem"
    if isinstance(cause, socket.gaierror) and cause.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", 0)):
        return SetupError, "check the host name in the URL"
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return SetupError, HINTED[2026][1]
    if isinstance(error, RuntimeError):
        return SetupError, _advice(str(error))
    if number == BINLOG_ERROR:
        found = (answer for pattern, answer in BINLOG_FAILURES.items() if pattern.search(_text(error)))
        return next(found, (DivergedError, ""))
    if number is not None and number in HINTED:
        return HINTED[number]
    for numbers, failure in ((PASSING, TransientError), (LASTING, SetupError), (REFUSED_DATA, DataError)):
        if number in numbers:
            return failure, ""
    if number is None and isinstance(error, OSError | EOFError | pymysql.InterfaceError | pymysql.InternalError):
        return TransientError, ""
    state = getattr(error, "sqlstate", None) or ""
    # A class that no table knows would not go away by itself.
    return CLASSES.get(state[:2], SetupError), ""


def _original(error: Exception) -> BaseException:
    """Return the failure of the operating system or of TLS that the driver's exception follows, or the exception."""
    return next((shown for shown in chain(error) if isinstance(shown, OSError)), error)


def _advice(text: str) -> str:
    if "cryptography" in text:
        return "pip install 'cdcrep[mysql]', or connect with TLS"
    if "LOAD_LOCAL" in text:
        return "this server asks its clients for their files: do not connect to it"
    return ""


def _text(error: BaseException) -> str:
    if isinstance(error, pymysql.MySQLError) and len(error.args) > 1:
        return str(error.args[1])
    return str(error)


def _message(error: BaseException) -> str:
    """Return what the server or the driver said, on one line, without values."""
    number, text = error_number(error), _text(error)
    if isinstance(error, RuntimeError) and "LOAD_LOCAL" in text:
        return "the server asked for a file of this machine, which was refused"
    if number in TRIGGERED:
        return "an exception was raised by a trigger or a procedure"
    from_server = number is not None and not 2000 <= number < 3000
    if from_server and number not in NAMES_ONLY:
        place = PLACE.search(text)
        head = text[: place.start()] if place else text
        text = QUOTED.sub("…", head) + (place[0] if place else "")
    return " ".join(text.split()) or type(error).__name__
