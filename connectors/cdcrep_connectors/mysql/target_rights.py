"""Says which privileges the sink's user lacks in the target, with the GRANT that gives them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cdcrep.connector import Obstacle
from cdcrep.table import TableId
from cdcrep_connectors.mysql.privileges import Privileges, account, whole_database
from cdcrep_connectors.mysql.target_names import qualify

BOOKKEEPING: Final = (
    *("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "CREATE VIEW", "CREATE TEMPORARY TABLES"),
)
WRITING: Final = ("SELECT", "INSERT", "DELETE")
CREATING: Final = (*WRITING, "CREATE")


@dataclass(frozen=True)
class Rights:
    """What a user may do, and how to let him do more."""

    user: str
    """As CURRENT_USER() says it: `name@host`."""
    privileges: Privileges

    def of_bookkeeping(self) -> Iterator[Obstacle]:
        """Name what is lacking for the database of the bookkeeping."""
        if lacking := self.privileges.lacking(BOOKKEEPING, "cdcrep"):
            yield Obstacle(
                f"user {self.user} lacks privileges on the target's database cdcrep: {', '.join(lacking)}",
                f"GRANT {', '.join(BOOKKEEPING)} ON cdcrep.* TO {account(self.user)};",
            )

    def of_creation(self, table: TableId) -> Iterator[Obstacle]:
        """Name what is lacking for a table that is to be created, and its database if need be."""
        if lacking := self.privileges.lacking(CREATING, table.schema, table.name):
            yield Obstacle(
                f"{table}: user {self.user} may not create and write the table in the target: {', '.join(lacking)}",
                f"GRANT {', '.join(CREATING)}, ALTER ON {whole_database(table.schema)} TO {account(self.user)};",
            )
        elif self.privileges.lacking(["ALTER"], table.schema, table.name):
            yield self._cannot_grow(table, fatal=False)

    def of_writing(self, table: TableId, *, grows: bool) -> Iterator[Obstacle]:
        """Name what is lacking for a table that is there; `grows`: columns are to be added to it."""
        if lacking := self.privileges.lacking(WRITING, table.schema, table.name):
            yield Obstacle(
                f"{table}: user {self.user} may not write the target's table: {', '.join(lacking)}",
                self._grant(WRITING, table),
            )
        if self.privileges.lacking(["ALTER"], table.schema, table.name):
            yield self._cannot_grow(table, fatal=grows)

    def of_seeing_triggers(self, table: TableId) -> Iterator[Obstacle]:
        """Say where triggers would not be seen."""
        if self.privileges.lacking(["TRIGGER"], table.schema, table.name):
            yield Obstacle(
                f"{table}: user {self.user} cannot see whether the target's table has triggers",
                self._grant(["TRIGGER"], table),
                fatal=False,
            )

    def _cannot_grow(self, table: TableId, *, fatal: bool) -> Obstacle:
        return Obstacle(
            f"{table}: user {self.user} may not add columns to the target's table",
            self._grant(["ALTER", "CREATE"], table),
            fatal=fatal,
        )

    def _grant(self, privileges: Sequence[str], table: TableId) -> str:
        return f"GRANT {', '.join(privileges)} ON {qualify(table)} TO {account(self.user)};"
