"""Decodes one backlog with cdcrep's source and counts rows: `python -m bench.consumers.decoder`.

Arguments: the source's URL, position, the table whose row is the backlog's last, all tables. Prints as
`bench.consumers.receiver` does.
"""

from __future__ import annotations

import signal
import sys
import time

from cdcrep.connector import Copied, Pipeline
from cdcrep.position import Position
from cdcrep.selection import Selection
from cdcrep.table import TableId
from cdcrep_connectors.mysql.options import SourceOptions
from cdcrep_connectors.mysql.source import MySQLSource


def main(url: str, position: str, last: str, *tables: str) -> None:
    after = Position(position)
    source = MySQLSource(Pipeline("bench_decode", Selection(tables)), SourceOptions(url=url))
    copied = {TableId(*table.split(".")): Copied(after, done=True) for table in tables}
    rows = 0
    for batch in source.stream(after, copied):
        rows += batch.rows
        if any(str(changes.table.id) == last for changes in batch.changes):
            break
    print(rows, time.monotonic(), flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
