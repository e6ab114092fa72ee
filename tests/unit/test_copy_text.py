"""Arrow columns become COPY's text format exactly."""

from __future__ import annotations

import datetime
import decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcrep.errors import DataError
from cdcrep_connectors.postgres.copy_text import PIECE_BYTES, copy_text

UNESCAPED = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}


def written(table: pa.Table) -> bytes:
    return b"".join(copy_text(table.columns, table.num_rows))


def parse(text: str) -> list[tuple[str | None, ...]]:
    """Read COPY's text format as the manual describes it, one character at a time."""
    rows = text.split("\n")
    assert rows.pop() == ""
    return [tuple(None if value == "\\N" else unescape(value) for value in row.split("\t")) for row in rows]


def unescape(value: str) -> str:
    characters = iter(value)
    return "".join(UNESCAPED[next(characters)] if character == "\\" else character for character in characters)


texts = st.none() | st.text(st.sampled_from("\\\t\n\rN.aé😀\x01 "), max_size=8)


@given(st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[texts] * width), min_size=1, max_size=12)))
def test_reading_what_was_written_gives_the_values_back(rows: list[tuple[str | None, ...]]) -> None:
    table = pa.table(
        [pa.array(column, pa.string()) for column in zip(*rows, strict=True)], names=[*"abcd"][: len(rows[0])]
    )

    assert parse(written(table).decode()) == rows


def test_a_slice_writes_its_own_rows_only() -> None:
    table = pa.table({"a": ["zero\\", "one", None, "three"], "b": [b"\x00", b"\x01\xff", b"", None]})

    assert written(table.slice(1, 3)) == b"one\t\\\\x01ff\n\\N\t\\\\x\nthree\t\\N\n"


def test_chunked_columns_are_one_run_of_rows() -> None:
    column = pa.chunked_array([["a"], [], ["b", "c\t"]], pa.string())

    assert written(pa.table({"a": column, "b": column})) == b"a\ta\nb\tb\nc\\t\tc\\t\n"


def test_typed_values_are_written_as_postgresql_reads_them() -> None:
    moment = datetime.datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=datetime.UTC)
    table = pa.table(
        {
            "bool": [True],
            "int": pa.array([-(2**63)], pa.int64()),
            "float": [0.1],
            "decimal": [decimal.Decimal("12.50")],
            "date": [datetime.date(2024, 2, 29)],
            "timestamp": pa.array([moment], pa.timestamp("us", "UTC")),
            "code": pa.array(["x"]).dictionary_encode(),
        }
    )

    assert written(table) == b"true\t-9223372036854775808\t0.1\t12.50\t2024-02-29\t2024-02-29 23:59:59.123456Z\tx\n"


def test_rows_without_columns_are_empty_lines() -> None:
    assert b"".join(copy_text([], 3)) == b"\n\n\n"


def test_large_values_are_cut_into_pieces() -> None:
    table = pa.table({"a": ["x" * (3 * PIECE_BYTES), "\\" * PIECE_BYTES]})

    pieces = list(copy_text(table.columns, 2))

    assert max(map(len, pieces)) == PIECE_BYTES
    assert b"".join(pieces) == b"x" * (3 * PIECE_BYTES) + b"\n" + b"\\" * (2 * PIECE_BYTES) + b"\n"


def test_an_arrow_type_without_a_text_form_is_refused() -> None:
    with pytest.raises(DataError, match="list"):
        written(pa.table({"a": [[1, 2]]}))
