"""Measures decoding alone: `python -m bench.binlog_decode FILE… [--rounds N]`, FILE as in a server's data directory.

The files must have been written with `binlog_row_metadata` FULL and hold whole transactions. Reads them whole, then
frames, verifies and decodes them in bites, as a source does, to typed Arrow columns.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

from cdcrep.columns import padded
from cdcrep_connectors.mysql.binlog import Decoder
from cdcrep_connectors.mysql.described_tables import describe
from cdcrep_connectors.mysql.expansion import expand
from cdcrep_connectors.mysql.framing import Framing, cut
from cdcrep_connectors.mysql.transactions import find_transactions, gtid_runs, last_gtids

MAGIC = 4
BITE = 8 << 20


def decode(content: bytes, *, mariadb: bool, bite: int = BITE) -> tuple[int, int]:
    """Decode a log file and return how many rows and transactions were in it."""
    decoder = Decoder(describe, mariadb=mariadb)
    framing = Framing(checksums=False)
    view, at, rows, transactions, size = memoryview(content), MAGIC, 0, 0, bite
    while at < len(content):
        part = view[at : at + size]
        buffer = padded(part)
        start, end, _ = cut(buffer, 0, len(part))
        events, origin = expand(framing.verify(buffer, start, end))
        found = find_transactions(events, mariadb=mariadb)
        transactions += len(found)
        names = last_gtids(events, found.first) if mariadb else list(gtid_runs(events, found.first))
        assert names or not len(found)
        done = found.rest if at + size < len(content) else len(events)
        whole = events.slice(0, done)
        rows += sum(map(len, decoder.decode(whole).changes))
        taken = int(end[origin[done - 1]]) if done else 0
        if not taken and at + size >= len(content):
            break
        size = bite if taken else size * 2
        at += taken
    return rows, transactions


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for file in arguments.files:
        content = file.read_bytes()
        for _ in range(arguments.rounds):
            began, busy = time.perf_counter(), time.process_time()
            rows, transactions = decode(content, mariadb=b"MariaDB" in content[:100])
            seconds, busy = time.perf_counter() - began, time.process_time() - busy
            megabytes = len(content) / 1e6
            print(
                f"{file.name}: {rows:,} rows in {transactions:,} transactions, {megabytes:,.0f} MB, {seconds:.2f} s: "
                f"{rows / seconds:,.0f} rows/s, {megabytes / seconds:,.0f} MB/s; {rows / busy:,.0f} rows per CPU second"
            )
    print(f"peak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


if __name__ == "__main__":
    main()
