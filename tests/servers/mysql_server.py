"""A throw-away MySQL or MariaDB server of a certain release that tests may configure, stop and crash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cdcrep.demo import mysql_server
from tests.servers.mysql_binaries import Binaries

START_SECONDS: Final = mysql_server.START_SECONDS

SETTINGS: Final[Mapping[str, str]] = {
    "server_id": "1",
    "log_bin": "binlog",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "binlog_row_metadata": "FULL",
    "sync_binlog": "0",
    # A crash of the server loses nothing, one of the machine may.
    "innodb_flush_log_at_trx_commit": "2",
    "innodb_buffer_pool_size": "64M",
    "innodb_log_buffer_size": "8M",
    "max_connections": "200",
    "table_open_cache": "400",
    "skip_name_resolve": "ON",
}

MYSQL_SETTINGS: Final[Mapping[str, str]] = {
    "gtid_mode": "ON",
    "enforce_gtid_consistency": "ON",
    "innodb_redo_log_capacity": "32M",
    "mysqlx": "OFF",
    "local_infile": "ON",
    "secure_file_priv": "",
}

MARIADB_SETTINGS: Final[Mapping[str, str]] = {
    "gtid_strict_mode": "ON",
    "log_slave_updates": "ON",
    "innodb_log_file_size": "32M",
}


def default_settings(is_mariadb: bool) -> dict[str, str]:
    """Return the server variables that every test's server starts with."""
    return {**SETTINGS, **(MARIADB_SETTINGS if is_mariadb else MYSQL_SETTINGS)}


class MySQLServer(mysql_server.MySQLServer):
    """A server whose `settings` are added to `default_settings`."""

    def __init__(self, binaries: Binaries, settings: Mapping[str, str] | None = None) -> None:
        self.release = binaries.release
        template = binaries.template if binaries.template.exists() else None
        super().__init__(binaries, {**default_settings(self.release.is_mariadb), **(settings or {})}, template)
