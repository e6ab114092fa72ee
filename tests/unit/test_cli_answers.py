"""How the rows of a query are written."""

from __future__ import annotations

import csv
import datetime
import io
import sys
from decimal import Decimal

import pyarrow as pa
import pytest

from cdcrep.cli import answers


def written(write: object, data: pa.Table, capsys: pytest.CaptureFixture[str]) -> str:
    assert callable(write)
    write(data)
    return capsys.readouterr().out


def test_csv_tells_null_from_empty_text(capsys: pytest.CaptureFixture[str]) -> None:
    data = pa.table({"a": [None, "", "x"], "b": [1, 2, None]})

    assert written(answers.write_csv, data, capsys) == 'a,b\n,1\n"",2\nx,\n'


def test_csv_can_be_read_back_whatever_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ['he said "no"', "a,b", "line\nbreak", "\r", " spaces ", "Größe", "\x1b[31m", "NULL"]
    data = pa.table({"id,x": list(range(len(texts))), "text": texts})

    rows = list(csv.reader(io.StringIO(written(answers.write_csv, data, capsys), newline="")))

    assert rows == [["id,x", "text"], *([str(i), text] for i, text in enumerate(texts))]


def test_values_of_every_kind_have_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    data = pa.table(
        {
            "decimal": [Decimal("1234567890.10")],
            "float": [0.1],
            "bool": [True],
            "bytes": [b"\x00\xff"],
            "date": [datetime.date(2026, 1, 2)],
            "list": [[1, None, 3]],
            "map": [{"k": "v"}],
            "far": pa.array([253402300800000000], pa.timestamp("us")),  # the first moment of the year 10000
            "nanoseconds": pa.array([1], pa.timestamp("ns")),
        }
    )

    row = written(answers.write_csv, data, capsys).splitlines()[1]

    assert row.startswith("1234567890.10,0.1,true,\\x00ff,2026-01-02,")
    assert "10000-01-01 00:00:00" in row
    assert row.endswith("1970-01-01 00:00:00.000000001")


def test_columns_are_aligned_and_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    data = pa.table({"name": ["\x1b[2J", None, "a\nb"], "n": [1, 22, 333]})

    assert written(answers.write_table, data, capsys).splitlines() == [
        "name     n",
        "-------  ---",
        "\\x1b[2J  1",
        "NULL     22",
        "a\\nb     333",
    ]


def test_no_rows_and_no_columns_are_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert written(answers.write_table, pa.table({"a": pa.array([], pa.int64())}), capsys) == "a\n-\n"
    assert written(answers.write_csv, pa.table({"a": pa.array([], pa.int64())}), capsys) == "a\n"


def test_a_terminal_gets_a_table_of_bounded_length(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    data = pa.table({"n": list(range(answers.MOST_ROWS_ON_TERMINAL + 5)), "markup": ["[red]x"] * 1005})

    out = written(answers.write_table, data, capsys)

    assert "… and 5 more rows" in out
    assert "[red]x" in out
