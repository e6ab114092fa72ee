"""Rows of COPY's binary form become typed Arrow columns, or a DataError; never another value."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcrep.errors import DataError
from cdcrep.table import Column, ColumnType, Kind, Table, UserType
from cdcrep_connectors.postgres.copy_binary import Decoder, wire_of
from tests.unit.scripted_postgres import fields

EPOCH_DAYS: Final = 10_957
EPOCH: Final = EPOCH_DAYS * 86_400_000_000
LATEST: Final = 2**63 - 2 - EPOCH
"""The last time that 64 bits of microseconds since 1970 hold: one more is infinity."""

BETWEEN: Final = b"d\0\0\0\x09\0\x01"
"""Stands between rows: a message's header and the number of columns."""

JSONB: Final = ColumnType(Kind.JSON, "jsonb")

Row = Sequence[bytes | None]


def of(kind: Kind, native: str = "") -> ColumnType:
    return ColumnType(kind, native)


def decode_bytes(types: Sequence[ColumnType], rows: Sequence[bytes]) -> pa.RecordBatch:
    """Decode rows that stand in one buffer with other bytes before each, and none behind the last."""
    table = Table("public", "t", tuple(Column(f"v{i}", type_) for i, type_ in enumerate(types)), (), "postgresql")
    wires = [wire for type_ in types if (wire := wire_of(type_)) is not None]
    buffer = np.frombuffer(b"".join(BETWEEN + row for row in rows), np.uint8)
    lengths = np.array([len(row) for row in rows], np.int64)
    end = np.cumsum(lengths + len(BETWEEN))
    start = end - lengths
    batch = Decoder(table, wires).batch(buffer, start, end)
    batch.validate(full=True)
    return batch


def decode(types: Sequence[ColumnType], rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    """Return rows as Python has them, times as Arrow's numbers."""
    batch = decode_bytes(types, [fields(*row) for row in rows])
    return list(zip(*(values_of(column) for column in batch.columns), strict=True))


def values_of(column: pa.Array) -> list[Any]:
    if pa.types.is_date(column.type):
        column = column.view(pa.int32())
    elif pa.types.is_timestamp(column.type):
        column = column.view(pa.int64())
    return list(column.to_pylist())


def number(form: str, value: float) -> bytes:
    return struct.pack(f">{form}", value)


VALUES: Final[dict[ColumnType, list[tuple[bytes, Any]]]] = {
    of(Kind.BOOL): [(b"\x01", True), (b"\0", False), (b"\x01", True)],
    of(Kind.INT16): [(number("h", n), n) for n in (-(2**15), 2**15 - 1, -1)],
    of(Kind.INT32): [(number("i", n), n) for n in (-(2**31), 2**31 - 1, -1)],
    of(Kind.INT64): [(number("q", n), n) for n in (-(2**63), 2**63 - 1, -1)],
    of(Kind.UINT32): [(number("I", n), n) for n in (2**32 - 1, 2**31, 0)],
    of(Kind.FLOAT32): [(number("f", n), n) for n in (1.5, -float("inf"), 2.0**-149)],
    of(Kind.FLOAT64): [(number("d", n), n) for n in (0.1, float("inf"), 5e-324)],
    of(Kind.DATE): [(number("i", n), n + EPOCH_DAYS) for n in (0, -2451545, 2145031948)],
    of(Kind.TIMESTAMP): [(number("q", n), n + EPOCH) for n in (0, -211813488000000000, LATEST)],
    of(Kind.TIMESTAMPTZ): [(number("q", n), n + EPOCH) for n in (1, -EPOCH - 1, LATEST)],
    of(Kind.BYTES): [(b"", b""), (b"\xff\0\xfe", b"\xff\0\xfe"), (BETWEEN * 9, BETWEEN * 9)],
    of(Kind.TEXT, "text"): [(b"", ""), ("é🎉".encode(), "é🎉"), (b"\x01\x02\n\\N", "\x01\x02\n\\N")],
    of(Kind.TEXT, '"char"'): [(b"", ""), (b"\\351", "\\351"), (b"a", "a")],
    of(Kind.DECIMAL, "numeric"): [(b"NaN", "NaN"), (b"1.10", "1.10"), (b"-0.001", "-0.001")],
    of(Kind.JSON, "json"): [(b' {"a" : 1}', ' {"a" : 1}'), (b"1", "1"), (b"\t2", "\t2")],
    JSONB: [(b"\x01{}", "{}"), (b"\x01" + '"ü"'.encode(), '"ü"'), (b"\x01\x01", "\x01")],
    of(Kind.ARRAY, "integer[]"): [(b"{1,NULL}", "{1,NULL}"), (b"{}", "{}"), (b"{-1}", "{-1}")],
    ColumnType(Kind.VERBATIM, "mood", user_type=UserType("public", "mood", "enum")): [
        (b"sad", "sad"),
        ("жизнь".encode(), "жизнь"),
        (b"", ""),
    ],
}
"""Type -> values as the server sends them, and as they become; at least three of each."""

NULLS: Final = {
    "none": (False, False, False),
    "first": (True, False, False),
    "last": (False, False, True),
    "between": (False, True, False),
    "all": (True, True, True),
}


def given_rows(types: Sequence[ColumnType], nulls: Sequence[bool]) -> tuple[list[Row], list[tuple[Any, ...]]]:
    """Return three rows with nulls in the same place of every column, as sent and as they become."""
    sent = [[None if null else VALUES[type_][i][0] for type_ in types] for i, null in enumerate(nulls)]
    expected = [tuple(None if null else VALUES[type_][i][1] for type_ in types) for i, null in enumerate(nulls)]
    return list(sent), expected


@pytest.mark.parametrize("nulls", NULLS.values(), ids=NULLS)
@pytest.mark.parametrize("type_", VALUES, ids=lambda type_: type_.native or str(type_.kind))
def test_a_column_of_any_type_keeps_its_values_and_nulls(type_: ColumnType, nulls: Sequence[bool]) -> None:
    sent, expected = given_rows([type_], nulls)

    assert decode([type_], sent) == expected


@pytest.mark.parametrize("nulls", NULLS.values(), ids=NULLS)
def test_columns_of_all_types_beside_each_other_keep_their_values(nulls: Sequence[bool]) -> None:
    types = [*VALUES, *reversed(VALUES)]
    sent, expected = given_rows(types, nulls)

    assert decode(types, sent) == expected


TEXT: Final = of(Kind.TEXT, "text")
FIXED: Final = (of(Kind.INT64), of(Kind.BOOL), of(Kind.INT16), of(Kind.FLOAT64))

SHAPES: Final = {
    "several of fixed width": FIXED,
    "fixed width before text": (*FIXED, TEXT),
    "fixed width behind text": (TEXT, *FIXED),
    "two groups": (*FIXED, TEXT, *FIXED, TEXT, *FIXED),
    "text only": (TEXT, of(Kind.BYTES), JSONB, TEXT),
}


@pytest.mark.parametrize("types", SHAPES.values(), ids=SHAPES)
def test_a_null_in_any_one_place_moves_no_other_value(types: Sequence[ColumnType]) -> None:
    sent, expected = given_rows(types, NULLS["none"])
    for i in range(len(sent)):
        for j in range(len(types)):
            with_null: list[list[bytes | None]] = [list(row) for row in sent]
            with_null[i][j] = None

            found = decode(types, with_null)

            assert found == [(*row[:j], None, *row[j + 1 :]) if at == i else row for at, row in enumerate(expected)], (
                i,
                j,
            )


@pytest.mark.parametrize(("kind", "form", "bits"), [(Kind.FLOAT32, "f", "I"), (Kind.FLOAT64, "d", "Q")])
@pytest.mark.parametrize("with_null", [False, True])
def test_every_nan_becomes_the_same_and_negative_zero_stays(kind: Kind, form: str, bits: str, with_null: bool) -> None:
    sign = 1 << (8 * struct.calcsize(bits) - 1)
    (plain,) = struct.unpack(f">{bits}", struct.pack(f">{form}", float("nan")))
    signalling = plain ^ (plain & -plain) | 1
    sent = [struct.pack(f">{bits}", value) for value in (plain | sign, plain | 12345, signalling, sign)]

    batch = decode_bytes([of(kind)], [fields(value) for value in (*sent, *([None] if with_null else []))])

    raw = np.frombuffer(batch.column(0).buffers()[1], f"=u{struct.calcsize(bits)}")[:4]
    assert raw.tolist() == [plain, plain, plain, sign]


@pytest.mark.parametrize(
    ("kind", "form", "width"), [(Kind.DATE, "i", 31), (Kind.TIMESTAMP, "q", 63), (Kind.TIMESTAMPTZ, "q", 63)]
)
def test_infinite_times_become_the_largest_numbers(kind: Kind, form: str, width: int) -> None:
    sent: list[Row] = [[number(form, 2**width - 1)], [None], [number(form, -(2**width))]]

    assert decode([of(kind)], sent) == [(2**width - 1,), (None,), (-(2**width) + 1,)]


@pytest.mark.parametrize("kind", [Kind.TIMESTAMP, Kind.TIMESTAMPTZ])
@pytest.mark.parametrize("late", [LATEST + 1, 2**63 - 2])
@pytest.mark.parametrize("other", [[number("q", 0)], [None]])
def test_a_time_later_than_64_bits_reach_is_refused_by_name(kind: Kind, late: int, other: Row) -> None:
    with pytest.raises(DataError, match=r"public\.t, column 'v0': a time after the year 294,246") as refused:
        decode([of(kind)], [other, [number("q", late)], other])

    assert str(late) not in str(refused.value)


@pytest.mark.parametrize("type_", [TEXT, JSONB, of(Kind.DECIMAL)], ids=["text", "jsonb", "numeric"])
@pytest.mark.parametrize("wrong", [b"\x01secret\xff", b"\x01\xc3", b"\x01\xed\xa0\x80"])
def test_text_that_is_not_utf8_is_refused_by_name_without_the_value(type_: ColumnType, wrong: bytes) -> None:
    with pytest.raises(DataError, match=r"public\.t, column 'v1': a text value is not valid UTF-8") as refused:
        decode([TEXT, type_], [[b"a", b"\x01b"], [None, wrong]])

    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("wrong", [b"", b"\x02{}", b"{}"])
def test_a_jsonb_of_an_unknown_version_is_refused_by_name(wrong: bytes) -> None:
    alone: list[Row] = [[wrong]]
    among: list[Row] = [[b"\x01{}"], [None], [wrong]]
    for rows in (alone, among):
        with pytest.raises(DataError, match=r"public\.t, column 'v0': .*version"):
            decode([JSONB], rows)


ROW: Final = fields(number("i", 1), number("d", 2.5), b"text", None, b"\x01", b"bytes")
ROW_TYPES: Final = (of(Kind.INT32), of(Kind.FLOAT64), TEXT, of(Kind.INT64), of(Kind.BOOL), of(Kind.BYTES))

WRONG: Final = {
    "longer": [ROW + b"\0"],
    "one more column": [ROW + fields(None)],
    "too wide": [ROW.replace(fields(number("i", 1)), fields(number("q", 1)))],
    "too narrow": [ROW.replace(fields(b"\x01"), fields(b""))],
    "negative length": [ROW.replace(fields(b"text"), number("i", -2) + b"text")],
    "most negative length": [ROW.replace(fields(b"text"), number("i", -(2**31)) + b"text")],
    "longest length": [ROW.replace(fields(b"bytes"), number("i", 2**31 - 1) + b"bytes")],
    "reaches into the next row": [ROW[:-5], ROW],
}


@pytest.mark.parametrize("rows", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("before", [0, 2])
def test_what_is_no_row_is_refused(rows: list[bytes], before: int) -> None:
    with pytest.raises(DataError, match=r"^public\.t: what the server copies cannot be read: "):
        decode_bytes(ROW_TYPES, [ROW] * before + rows)


@pytest.mark.parametrize("types", [ROW_TYPES, *SHAPES.values()], ids=["with a null", *SHAPES])
def test_a_row_that_is_cut_anywhere_is_refused(types: Sequence[ColumnType]) -> None:
    whole = ROW if types is ROW_TYPES else fields(*given_rows(types, NULLS["none"])[0][1])
    for length in range(len(whole)):
        for rows in ([whole[:length]], [whole, whole[:length]], [whole[:length], whole]):
            with pytest.raises(DataError):
                decode_bytes(types, rows)


@given(data=st.data())
def test_damaged_rows_give_a_batch_or_a_data_error_and_nothing_else(data: st.DataObject) -> None:
    types = data.draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=6))
    rows = []
    for _ in range(data.draw(st.integers(1, 4))):
        values = [data.draw(st.sampled_from([None, *(sent for sent, _ in VALUES[type_])])) for type_ in types]
        damaged = bytearray(fields(*values))
        for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=3)):
            damaged[at] = data.draw(st.integers(0, 255))
        rows.append(bytes(damaged[: data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))]))

    try:
        batch = decode_bytes(types, rows)
    except DataError:
        return
    assert (batch.num_rows, batch.num_columns) == (len(rows), len(types))


@pytest.mark.parametrize("native", ["inet", "public.pair"])
def test_types_that_only_copy_can_write_have_no_wire(native: str) -> None:
    composite = UserType("public", "pair", "composite") if native == "public.pair" else None
    verbatim = ColumnType(Kind.VERBATIM, native, user_type=composite)
    domain = ColumnType(Kind.VERBATIM, "public.d", user_type=UserType("public", "d", "domain", base=verbatim))

    assert wire_of(verbatim) is None
    assert wire_of(domain) is None


def test_a_domain_travels_as_what_it_is_over() -> None:
    inner = ColumnType(Kind.JSON, "public.d", user_type=UserType("public", "d", "domain", base=JSONB))
    outer = ColumnType(Kind.JSON, "public.e", user_type=UserType("public", "e", "domain", base=inner))

    assert wire_of(outer) == wire_of(JSONB)
