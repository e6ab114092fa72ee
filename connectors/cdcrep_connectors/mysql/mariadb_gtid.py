"""MariaDB's GTIDs: the last transaction per replication domain, as text and as bytes.

MariaDB documentation, "Global Transaction ID" and "GTID_LIST_EVENT": `domain-server-sequence`, one for each domain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cdcrep.errors import DataError

_GTID: Final = re.compile(r"(\d{1,10})-(\d{1,10})-(\d{1,20})")


@dataclass(frozen=True, slots=True, order=True)
class MariadbGtid:
    """One transaction: numbered within its domain, whichever server wrote it."""

    domain: int
    server: int
    sequence: int

    def __str__(self) -> str:
        """Render as MariaDB writes it."""
        return f"{self.domain}-{self.server}-{self.sequence}"

    @staticmethod
    def parse(text: str) -> MariadbGtid:
        """Read `domain-server-sequence`.

        Raises:
            DataError: it is no GTID.
        """
        match = _GTID.fullmatch(text.strip())
        if not match or int(match[1]) >= 1 << 32 or int(match[2]) >= 1 << 32 or int(match[3]) >= 1 << 64:
            raise DataError("not a GTID of MariaDB: it must look like 0-1-100")
        return MariadbGtid(int(match[1]), int(match[2]), int(match[3]))


@dataclass(frozen=True)
class MariadbGtidState:
    """The last transaction of each domain: everything before it in its domain is included."""

    last: Mapping[int, MariadbGtid] = field(default_factory=dict)

    @staticmethod
    def of(gtids: Iterable[MariadbGtid]) -> MariadbGtidState:
        """Make the state that transactions in commit order lead to."""
        last = {gtid.domain: gtid for gtid in gtids}
        return MariadbGtidState(dict(sorted(last.items())))

    @staticmethod
    def parse(text: str) -> MariadbGtidState:
        """Read `0-1-100,1-2-5`, or nothing, as in `gtid_binlog_pos`.

        Raises:
            DataError: it is no list of GTIDs, or one domain is in it twice.
        """
        gtids = [MariadbGtid.parse(part) for part in text.split(",")] if text.strip() else []
        state = MariadbGtidState.of(gtids)
        if len(state.last) != len(gtids):
            raise DataError("a GTID position of MariaDB names a domain twice")
        return state

    def __str__(self) -> str:
        """Render as MariaDB writes it, domains in order."""
        return ",".join(str(gtid) for _, gtid in sorted(self.last.items()))

    def __contains__(self, gtid: MariadbGtid) -> bool:
        """Tell whether a transaction is included."""
        last = self.last.get(gtid.domain)
        return last is not None and gtid.sequence <= last.sequence

    def contains(self, other: MariadbGtidState) -> bool:
        """Tell whether all that another state includes is included."""
        return all(gtid in self for gtid in other.last.values())

    def forked_from(self, other: MariadbGtidState) -> bool:
        """Tell whether both end with transactions of one number in a domain that are not the same.

        Where one is ahead only the server's log can tell, and it does when it is asked for what follows.
        """
        pairs = [(gtid, self.last.get(domain)) for domain, gtid in other.last.items()]
        return any(mine is not None and mine.sequence == gtid.sequence and mine != gtid for gtid, mine in pairs)

    def add(self, gtids: Iterable[MariadbGtid]) -> MariadbGtidState:
        """Return the state after more transactions, in commit order."""
        return MariadbGtidState.of([*self.last.values(), *gtids])

    def behind(self, other: MariadbGtidState) -> list[int]:
        """List the domains in which another state has transactions that this one has not."""
        return [domain for domain, gtid in sorted(other.last.items()) if gtid not in self]
