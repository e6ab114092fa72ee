"""Keeps the changes of XA transactions from their PREPARE to their COMMIT, and takes XA statements apart."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from cdcrep.errors import DataError, DivergedError
from cdcrep.table import TableId
from cdcrep_connectors.mysql.held import Held, Room
from cdcrep_connectors.mysql.position import Progress

_XA: Final = re.compile(r"\s*XA\s+(COMMIT|ROLLBACK)\s+X'([0-9A-Fa-f]*)',\s*X'([0-9A-Fa-f]*)',\s*(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Prepared:
    """An XA transaction that is neither committed nor rolled back."""

    before: Progress
    """What was behind when it began: reading begins here again as long as it is open."""
    held: Held
    impossible_dates: Counter[tuple[TableId, str]] = field(default_factory=Counter)
    """How many became NULL in it, per table and column."""


class PreparedTransactions:
    """The prepared transactions of one stream, oldest first.

    A start after a crash reads them again from the log (`begin`), so what is held need not outlive the process. Beyond
    `in_memory` bytes of all together it is held in files.
    """

    def __init__(self, in_memory: int) -> None:
        self._room = Room(in_memory)
        self._open: dict[bytes, Prepared] = {}

    def hold(self) -> Held:
        """Return where to keep the next transaction until it is prepared."""
        return Held(self._room)

    def add(self, xid: bytes, prepared: Prepared) -> None:
        """Keep a transaction that was prepared."""
        self._open[xid] = prepared

    def finish(self, statement: str) -> Prepared | None:
        """Let go of the transaction that XA COMMIT or XA ROLLBACK names; return it if it is committed.

        Raises:
            DivergedError: the transaction was prepared before the stream's first position.
        """
        match = _XA.match(statement)
        if match is None:
            raise DataError("the source logged an XA statement that cannot be read")
        names = bytes.fromhex(match[2]), bytes.fromhex(match[3])
        xid = int(match[4]).to_bytes(4, "little") + bytes(map(len, names)) + b"".join(names)
        found = self._open.pop(xid, None)
        if match[1].upper() == "ROLLBACK":
            if found is not None:
                found.held.close()
            return None
        if found is None:
            raise DivergedError(
                "an XA transaction was committed that had been prepared before the tables were copied: its changes "
                "are missing",
                hint="copy the tables anew while XA RECOVER shows no prepared transaction",
            )
        return found

    def begin(self, reached: Progress) -> Progress:
        """Return where reading must begin to see the prepared transactions again."""
        return next(iter(self._open.values())).before if self._open else reached

    def close(self) -> None:
        """Let go of all of them."""
        for prepared in self._open.values():
            prepared.held.close()
        self._open.clear()


def ends_prepared(statement: str) -> bool:
    """Tell whether a statement commits or rolls back a prepared transaction."""
    words = statement[:40].upper().split()
    return words[:1] == ["XA"] and words[1:2] in (["COMMIT"], ["ROLLBACK"])
