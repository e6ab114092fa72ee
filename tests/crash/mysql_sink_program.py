"""Applies the same history to a MySQL or MariaDB target, from wherever the target says it is: a process to kill.

CDCREP_CRASH_AT=sink.after_growth python -m tests.crash.mysql_sink_program mysql://root@127.0.0.1:3306/
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from cdcrep.changes import Batch
from cdcrep.connector import Copied, Sink
from cdcrep.table import Column, Table
from cdcrep.testing import crash
from cdcrep.testing.contract_data import FIRST, INT, TEXT, batch, inserted, pipeline, table, updated
from cdcrep_connectors.mysql.options import ServerOptions
from cdcrep_connectors.mysql.sink import MySQLSink

NARROW = table("grown", id=INT, note=TEXT)
WIDER = replace(NARROW, columns=(*NARROW.columns, Column("size", INT)))
WIDEST = replace(WIDER, columns=(*WIDER.columns, Column("colour", TEXT)))

LAST = [("1", "one", None, None), ("2", "zwei", "22", None), ("3", "three", "3", "red"), ("4", "four", "4", "blue")]


def history() -> list[Batch]:
    """Return the batches; the third ends in a shape that it did not begin with."""
    return [
        batch(1, inserted(NARROW, "1", "one"), inserted(NARROW, "2", "two")),
        batch(2, updated(WIDER, ("2", "two", None), ("2", "zwei", "22"))),
        batch(3, inserted(WIDER, "3", "three", "3"), inserted(WIDEST, "4", "four", "4", "blue")),
        batch(4, updated(WIDEST, ("3", "three", "3", None), ("3", "three", "3", "red"))),
    ]


def follow(sink: Sink, followed: Table) -> None:
    """Take the pipeline up where the target is."""
    checkpoint = sink.open()
    if followed.id not in checkpoint.tables:
        sink.prepare([followed])
        sink.register({followed.id: Copied(FIRST)}, FIRST)
    for each in history():
        if checkpoint.position is None or each.position is None or each.position > checkpoint.position:
            sink.apply(each)
    sink.close()


if __name__ == "__main__":
    crash.install(os.environ)
    follow(MySQLSink(pipeline("growth"), ServerOptions(url=sys.argv[1])), NARROW)
