"""`mysql-replication` decodes a binary log: run by the Python of an environment with it.

Arguments: port, file and offset of the log, token. Prints the number of rows and the time (`time.monotonic`) when the
row with the token, the last, has been decoded.
"""

from __future__ import annotations

import signal
import sys
import time
from importlib import import_module
from typing import Any


def main(port: str, file: str, offset: str, token: str) -> None:
    """Decode rows up to the token's."""
    events: Any = import_module("pymysqlreplication.row_event")
    reader: Any = import_module("pymysqlreplication").BinLogStreamReader(
        connection_settings={"host": "127.0.0.1", "port": int(port), "user": "root", "ssl_disabled": True},
        server_id=4_000_000_002,
        log_file=file,
        log_pos=int(offset),
        resume_stream=True,
        blocking=True,
        only_events=[events.WriteRowsEvent, events.UpdateRowsEvent, events.DeleteRowsEvent],
        enable_logging=False,
    )
    rows = 0
    for event in reader:
        rows += len(event.rows)
        if event.table == "mark" and any(token in row["values"].values() for row in event.rows):
            break
    print(rows, time.monotonic(), flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
