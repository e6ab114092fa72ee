"""A transaction of which a part was taken: what it did so far, and which of it a savepoint can undo."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from cdcrep.errors import DataError
from cdcrep.table import TableId
from cdcrep_connectors.mysql.framing import Events
from cdcrep_connectors.mysql.held import Held
from cdcrep_connectors.mysql.position import Progress

_SAVEPOINT: Final = re.compile(
    r"\s*(?P<back>ROLLBACK\s+(?:WORK\s+)?TO(?:\s+SAVEPOINT)?\s+|SAVEPOINT\s+)(?P<name>`(?:[^`]|``)*`|[^\s;]+)",
    re.IGNORECASE,
)
LARGER_BATCHES: Final = (
    "raise max_batch_rows and max_batch_bytes above the size of this transaction, so that it is read as a whole"
)

ImpossibleDates = Counter[tuple[TableId, str]]


@dataclass
class OpenTransaction:
    """A transaction that goes on."""

    before: Progress
    naming: Events
    """The event that names it, alone in a buffer of its own: the rest of the transaction may fill the other one."""
    held: Held
    """What it did and was not returned yet."""
    skipped: bool
    """The target has it already."""
    prepares: bool
    """XA: nothing of it may be returned before its COMMIT."""
    in_pieces: bool = False
    impossible_dates: ImpossibleDates = field(default_factory=Counter)
    """How many became NULL so far, per table and column."""
    savepoints: dict[str, tuple[int, ImpossibleDates] | None] = field(default_factory=dict)
    """Name -> how many batches were held there, and the counts; None: rows around it were decoded together."""

    def take_pieces(self) -> None:
        """Note that all that was held was returned: no savepoint before can be gone back to."""
        self.in_pieces = True
        self.savepoints.clear()

    def take_savepoint(self, statement: str, *, is_held: bool) -> None:
        """Carry out SAVEPOINT or ROLLBACK TO; `is_held`: all before the statement is held, and nothing behind it.

        MariaDB logs ROLLBACK TO where a table without transactions was changed, too; what is rolled back of all
        others is in the log nevertheless.

        Raises:
            DataError: a part is rolled back that was returned already, or cannot be told from what is kept.
        """
        match = _SAVEPOINT.match(statement)
        assert match is not None, "names_savepoint"
        name = match["name"].strip("`").casefold()
        if match["back"][:1] in "Ss":
            self.savepoints.pop(name, None)
            self.savepoints[name] = (len(self.held), self.impossible_dates.copy()) if is_held else None
            return
        mark = self.savepoints.get(name)
        if mark is None:
            raise DataError(
                "the source rolled back a part of a large transaction that is in its log", hint=LARGER_BATCHES
            )
        self.held.cut(mark[0])
        self.impossible_dates = mark[1].copy()
        for later in list(self.savepoints)[list(self.savepoints).index(name) + 1 :]:
            del self.savepoints[later]


def names_savepoint(statement: str) -> bool:
    """Tell whether a statement is SAVEPOINT or ROLLBACK TO."""
    return _SAVEPOINT.match(statement) is not None


def goes_back(statement: str) -> bool:
    """Tell whether a statement is ROLLBACK TO."""
    match = _SAVEPOINT.match(statement)
    return match is not None and match["back"][:1] in "Rr"
