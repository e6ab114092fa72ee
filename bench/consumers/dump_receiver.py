"""Receives one backlog of a binary log and counts bytes: `python -m bench.consumers.dump_receiver`.

Arguments: port, file and offset of the log, token. Prints as `bench.consumers.receiver` does.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import Final

import pymysql

from bench.consumers.receiver import receive
from cdcrep_connectors.mysql.replication import AtFile, start_dump

SERVER_ID: Final = 4_000_000_001


def main(port: str, file: str, offset: str, token: str) -> None:
    connection = pymysql.connect(host="127.0.0.1", port=int(port), user="root", autocommit=True, ssl_disabled=True)
    dump = start_dump(connection, AtFile(file, int(offset)), SERVER_ID)
    received = receive(dump.socket, token.encode(), rest_seconds=0)
    print(received, time.monotonic(), flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
