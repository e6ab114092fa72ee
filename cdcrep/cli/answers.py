"""How the rows of a query are written: for people, as CSV, as an Arrow stream."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import click
import pyarrow as pa

MOST_ROWS_ON_TERMINAL: Final = 1000


def write_table(data: pa.Table) -> None:
    """Write aligned columns; on a terminal with lines around them, and not more rows than anybody reads."""
    names = [printable(name) for name in data.column_names]
    if sys.stdout.isatty():
        _write_rich(names, data)
        return
    rows = [[printable(_text(value)) for value in row] for row in _rows(data)]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    for row in [names, ["-" * width for width in widths], *rows]:
        line = "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def _write_rich(names: Sequence[str], data: pa.Table) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name, field in zip(names, data.schema, strict=True):
        table.add_column(Text(name), justify="right" if _is_number(field.type) else "left", overflow="fold")
    for row in _rows(data.slice(0, MOST_ROWS_ON_TERMINAL)):
        table.add_row(*(Text(printable(_text(value)), style="dim" if value is None else "") for value in row))
    console = Console(highlight=False)
    console.print(table)
    if data.num_rows > MOST_ROWS_ON_TERMINAL:
        console.print(f"… and {data.num_rows - MOST_ROWS_ON_TERMINAL:,} more rows: --format csv writes all of them")


def write_csv(data: pa.Table) -> None:
    """Write CSV with a header; NULL is an empty field, an empty text is a quoted one."""
    sys.stdout.write(",".join(map(_csv_field, data.column_names)) + "\n")
    for batch in data.to_batches(max_chunksize=10_000):
        for row in _rows(pa.Table.from_batches([batch])):
            sys.stdout.write(",".join("" if value is None else _csv_field(_text(value)) for value in row) + "\n")


def write_arrow(data: pa.Table) -> None:
    """Write an Arrow IPC stream."""
    with pa.ipc.new_stream(sys.stdout.buffer, data.schema) as writer:
        writer.write_table(data)


def printable(text: str) -> str:
    """Replace what would steer a terminal or break a line by its escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _rows(data: pa.Table) -> Iterator[tuple[Any, ...]]:
    columns = [_values(column) for column in data.columns]
    return zip(*columns, strict=True)


def _values(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return list(column.to_pylist())
    try:
        # Arrow's own text forms: Python's datetime ends at year 9999 and at microseconds.
        return list(column.cast(pa.string()).to_pylist())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return list(column.to_pylist())


def _text(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return str(value)


def _csv_field(text: str) -> str:
    needs_quotes = not text or any(character in text for character in ',"\r\n')
    return '"' + text.replace('"', '""') + '"' if needs_quotes else text


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
