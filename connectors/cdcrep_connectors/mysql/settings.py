"""Finds what stands in the way of replication in a server's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cdcrep.connector import Obstacle
from cdcrep.errors import CdcrepError
from cdcrep_connectors.mysql.continuity import NO_LOG

PERSISTENT: Final = "and in the server's configuration, so that it stays"

NAMES: Final = (
    "log_bin",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_metadata",
    "gtid_mode",
    "server_id",
    "log_slave_updates",
    "log_replica_updates",
    "innodb_native_foreign_keys",
    "lower_case_table_names",
)

Fetch = Callable[[str], Sequence[tuple[Any, ...]]]
"""Runs a query and returns its rows."""


@dataclass(frozen=True)
class ServerSettings:
    """What a server says about itself."""

    mariadb: bool
    variables: Mapping[str, str]
    """In upper case."""
    filtered: bool
    """The server leaves databases out of its log."""
    replicates: bool
    """The server is itself a replica."""

    @property
    def logs_cascades(self) -> bool:
        """Tell whether rows that foreign keys change are in the log: since MySQL 9.6, unless InnoDB does it."""
        return not self.mariadb and self.variables.get("innodb_native_foreign_keys") == "OFF"


def read_settings(fetch: Fetch, *, mariadb: bool) -> ServerSettings:
    """Ask for everything, changing nothing."""
    names = ", ".join(f"'{name}'" for name in NAMES)
    rows = fetch(f"SHOW GLOBAL VARIABLES WHERE variable_name IN ({names})")
    log_status = _first(fetch, "SHOW BINARY LOG STATUS", "SHOW MASTER STATUS")
    return ServerSettings(
        mariadb,
        {str(name).lower(): str(value).upper() for name, value in rows},
        any(str(part or "") for row in log_status for part in row[2:4]),
        bool(_first(fetch, "SHOW REPLICA STATUS", "SHOW SLAVE STATUS")),
    )


def settings_obstacles(found: ServerSettings) -> list[Obstacle]:
    """List what must be set otherwise."""
    values = found.variables
    if values.get("log_bin") != "ON":
        return [Obstacle("the source writes no binary log", NO_LOG)]
    listed = [*_row_obstacles(values)]
    if found.filtered:
        listed.append(
            Obstacle(
                "the server leaves databases out of its binary log (binlog_do_db or binlog_ignore_db)",
                "remove these options from the server's configuration and restart it",
            )
        )
    if found.replicates and "OFF" in (values.get("log_slave_updates"), values.get("log_replica_updates")):
        listed.append(
            Obstacle(
                "the server is a replica that does not log what it replicates (log_replica_updates is off)",
                "set log_replica_updates = ON (MariaDB: log_slave_updates) in its configuration and restart it, or "
                "follow its primary",
            )
        )
    if values.get("server_id") == "0":
        listed.append(Obstacle("the server has no server_id", f"SET GLOBAL server_id = 1, {PERSISTENT}"))
    if not found.mariadb and values.get("gtid_mode", "OFF") in ("ON_PERMISSIVE", "OFF_PERMISSIVE"):
        listed.append(
            Obstacle(f"gtid_mode is {values['gtid_mode']}, between off and on", "SET GLOBAL gtid_mode = ON, or OFF")
        )
    return listed


def _row_obstacles(values: Mapping[str, str]) -> list[Obstacle]:
    """List what is wrong with the form in which rows are logged."""
    listed = []
    if values.get("binlog_format", "ROW") != "ROW":
        listed.append(
            Obstacle(
                f"binlog_format is {values['binlog_format']}: changes may be logged as statements",
                f"SET GLOBAL binlog_format = ROW, {PERSISTENT}; sessions that are open keep the old format",
            )
        )
    if values.get("binlog_row_metadata", "MINIMAL") != "FULL":
        listed.append(
            Obstacle(
                "binlog_row_metadata is not FULL: rows from before an ALTER TABLE cannot be told apart",
                f"SET GLOBAL binlog_row_metadata = FULL, {PERSISTENT}",
                fatal=False,
            )
        )
    if values.get("binlog_row_image", "FULL") not in ("FULL", "FULL_NODUP"):
        listed.append(
            Obstacle(
                f"binlog_row_image is {values['binlog_row_image']}: an INSERT that leaves a column to its default will "
                "stop replication, because the log does not say what the default was",
                f"SET GLOBAL binlog_row_image = FULL, {PERSISTENT}",
                fatal=False,
            )
        )
    return listed


def _first(fetch: Fetch, *statements: str) -> Sequence[tuple[Any, ...]]:
    """Return the rows of the first statement that the server knows and the user may run."""
    for statement in statements:
        try:
            return fetch(statement)
        except CdcrepError:
            continue
    return []
