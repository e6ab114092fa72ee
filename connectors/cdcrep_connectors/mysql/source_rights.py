"""Says which privileges the source's user lacks, with the GRANT that gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cdcrep.connector import Obstacle
from cdcrep.table import TableId
from cdcrep_connectors.mysql.privileges import Privileges, account, read_privileges, whole_database
from cdcrep_connectors.mysql.sql_text import quoted_table

MONITORING: Final = {True: ("BINLOG MONITOR", "REPLICATION CLIENT"), False: ("REPLICATION CLIENT", "SUPER")}
"""MariaDB or not -> each of these shows where the log stands."""

LOCKING: Final = ("RELOAD", "FLUSH_TABLES")
"""Each of these locks writers out of a server."""


@dataclass(frozen=True)
class SourceRights:
    """What a user may do, and how to let him do more."""

    mariadb: bool
    user: str
    """As CURRENT_USER() says it: `name@host`."""
    privileges: Privileges

    def of_streaming(self) -> Iterator[Obstacle]:
        """Name what is lacking for following the log."""
        for names in (("REPLICATION SLAVE",), MONITORING[self.mariadb]):
            if self.privileges.lacking(names) == list(names):
                yield Obstacle(
                    f"the user lacks the privilege {names[0]}",
                    f"GRANT {'REPLICATION CLIENT' if len(names) > 1 else names[0]} ON *.* TO {account(self.user)};",
                )

    def of_reading(self, tables: Sequence[TableId]) -> Iterator[Obstacle]:
        """Name the tables of which not all columns may be read; the server shows no others than those that may be."""
        for table in tables:
            if self.privileges.lacking(["SELECT"], table.schema, table.name):
                yield Obstacle(
                    f"{table}: user {self.user} may not read all of its columns",
                    f"GRANT SELECT ON {quoted_table(table)} TO {account(self.user)};",
                )

    def of_locking(self, tables: Sequence[TableId]) -> Iterator[Obstacle]:
        """Say where writers can be locked out neither of the server nor of the tables that are to be copied."""
        if len(self.privileges.lacking(LOCKING)) < len(LOCKING):
            return
        schemas = sorted({table.schema for table in tables})
        lacking = [schema for schema in schemas if self.privileges.lacking(["LOCK TABLES"], schema)]
        if not lacking:
            return
        to = f"TO {account(self.user)};"
        grants = " ".join(f"GRANT LOCK TABLES ON {whole_database(schema)} {to}" for schema in lacking)
        # MariaDB's views can be opened without a lock, if the writers ever pause.
        yield Obstacle(
            "the user lacks the privilege RELOAD, with which writers are locked out for a moment before a copy, and "
            f"LOCK TABLES, which would do as well{': while many write, no copy begins' if self.mariadb else ''}",
            f"GRANT RELOAD ON *.* {to} or, where the server's owner keeps that to himself: {grants}",
            fatal=not self.mariadb,
        )


def read_rights(fetch: Callable[[str], Sequence[tuple[Any, ...]]], *, mariadb: bool) -> SourceRights:
    """Ask what the session's user may do."""
    ((user,),) = fetch("SELECT CURRENT_USER()")
    return SourceRights(mariadb, str(user), read_privileges(fetch))
