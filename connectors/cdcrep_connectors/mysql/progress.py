"""Moves what is behind forward by the transactions that events name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cdcrep.columns import Positions
from cdcrep.errors import DataError
from cdcrep_connectors.mysql.event_types import EventType
from cdcrep_connectors.mysql.framing import Events
from cdcrep_connectors.mysql.gtid_sets import Gtid, GtidSet
from cdcrep_connectors.mysql.mariadb_gtid import MariadbGtidState
from cdcrep_connectors.mysql.position import Progress
from cdcrep_connectors.mysql.transactions import gtid_runs, last_gtids


def advance(progress: Progress, events: Events, naming: Positions, after: int) -> Progress:
    """Return the progress behind the transactions that some of the events name, the last of which ends at an offset.

    Raises:
        DataError: a transaction has no GTID although those before had one.
    """
    gtids = progress.gtids
    if isinstance(gtids, GtidSet):
        if (events.types[naming] == EventType.ANONYMOUS_GTID).any():
            raise DataError(
                "a transaction of the source has no GTID, those before had one", hint="SET GLOBAL gtid_mode = ON"
            )
        gtids = gtids.add_runs(gtid_runs(events, naming))
    elif isinstance(gtids, MariadbGtidState):
        gtids = gtids.add(last_gtids(events, naming))
    return replace(progress, gtids=gtids, offset=int(after))


def is_behind(reached: Progress, before: Progress, naming: Events) -> bool:
    """Tell whether the transaction that an event names, and that begins at `before`, is included in `reached`."""
    first = np.zeros(1, np.int64)
    if isinstance(reached.gtids, GtidSet):
        runs = list(gtid_runs(naming, first))
        return bool(runs) and Gtid(runs[0][0], runs[0][1]) in reached.gtids
    if isinstance(reached.gtids, MariadbGtidState):
        return last_gtids(naming, first)[0] in reached.gtids
    return before.order() < reached.order()
