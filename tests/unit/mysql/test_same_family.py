"""Columns keep ENUM, SET and geometries where every value can be told from every other by its text or its bytes."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest

from cdcrep.table import Column, ColumnType, Kind, Table
from cdcrep_connectors.mysql.bulk_values import NamedRows
from cdcrep_connectors.mysql.column_types import Dialect, declared, target_types
from cdcrep_connectors.mysql.invalid_labels import divided, expected, in_pieces, unexpected
from cdcrep_connectors.mysql.same_family import is_same, own_type
from cdcrep_connectors.mysql.types import column_type

MARIADB = Dialect(is_mariadb=True)
UTF8 = "character set utf8mb4"


def shape(key: Sequence[str] = (), dialect: str = "mysql", **natives: str) -> Table:
    columns = tuple(Column(name, column_type(native), name not in key) for name, native in natives.items())
    return Table("shop", "t", columns, tuple(key), dialect)


@pytest.mark.parametrize(
    ("native", "kept"),
    [
        (f"enum('a','A','2','a,b') {UTF8}", "ENUM('a','A','2','a,b')"),
        ("enum('q''r','b\\\\c','n\\nl') character set latin1", "ENUM('q''r','b\\\\c','n\\nl')"),
        (f"set('b','a') {UTF8}", "SET('b','a')"),
        (f"enum('{'é' * 255}') {UTF8}", f"ENUM('{'é' * 255}')"),
        ("point", "POINT"),
        ("geomcollection", "GEOMETRYCOLLECTION"),
        # Its 0 reads as the empty label does.
        (f"enum('','a') {UTF8}", None),
        (f"set('','a') {UTF8}", None),
        (f"enum('a','a') {UTF8}", None),
        (f"set('a','b','a') {UTF8}", None),
        # Bytes, of which the catalogue of MySQL does not say so.
        ("enum('a','b')", None),
        ("enum('a ','b') character set binary", None),
        # What the catalogue writes for a character beyond U+FFFF.
        (f"enum('?','a') {UTF8}", None),
        (f"enum('😀','a') {UTF8}", None),
        (f"enum('{'a' * 256}') character set latin1", None),
        (f"varchar(20) {UTF8}", None),
        ("blob", None),
        ("int", None),
    ],
)
def test_a_type_is_kept_if_its_texts_are_as_good_as_its_values(native: str, kept: str | None) -> None:
    assert own_type(column_type(native), "mysql") == kept


def test_types_of_other_families_are_not_taken_for_ours() -> None:
    assert own_type(ColumnType(Kind.TEXT, f"enum('a') {UTF8}"), "postgresql") is None
    assert target_types(shape(dialect="postgresql", e=f"enum('a') {UTF8}"), MARIADB) == ["LONGTEXT"]


def test_labels_take_their_own_bytes_of_a_key_and_geometries_become_bytes() -> None:
    natives = {"e": f"enum('a') {UTF8}", "s": f"set('a') {UTF8}", "v": f"varchar(900) {UTF8}", "g": "point"}

    types = target_types(shape(list(natives), **natives), MARIADB)

    assert types == ["ENUM('a')", "SET('a')", "VARCHAR(382)", "VARBINARY(1531)"]
    assert declared(types[0], MARIADB) == "ENUM('a') CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"


def test_labels_for_which_a_table_has_no_room_come_last() -> None:
    long = ",".join(f"'label {i:094}'" for i in range(150))
    natives = {f"c{i}": f"enum('{i}',{long}) {UTF8}" for i in range(3)}

    wide = target_types(shape(**natives, p="point", n="int"), MARIADB)
    many = target_types(shape(**{f"c{i}": f"set('{i}') {UTF8}" for i in range(202)}), MARIADB)

    assert [type_.partition("(")[0] for type_ in wide] == ["ENUM", "ENUM", "LONGTEXT", "POINT", "INT"]
    assert many[199:] == ["SET('199')", "LONGTEXT", "LONGTEXT"]


@pytest.mark.parametrize(
    ("found", "same"),
    [
        ("enum('A','b')", True),
        ("enum('a','b')", False),
        ("enum('b','A')", False),
        ("enum('A','b','c')", False),
        ("set('A','b')", False),
        ("longtext", False),
    ],
)
def test_labels_are_the_same_only_in_their_order_and_case(found: str, same: bool) -> None:
    assert is_same("ENUM('A','b')", found) is same


def test_rows_with_an_enum_s_zero_are_told_apart_and_counted() -> None:
    table = shape(e=f"enum('a','b') {UTF8}", s=f"set('a') {UTF8}", f=f"enum('x') {UTF8}")
    values = [["a", "", None, ""], ["", "", "a", None], [None, "x", "x", ""]]
    columns = [pa.chunked_array([pa.array(each, pa.string())]) for each in values]
    rows = NamedRows(table, ["`e`", "`s`", "`f`"], table.columns, columns, 4)

    valid, invalid = divided(rows)

    assert invalid is not None
    assert [valid.values[0].to_pylist(), invalid.values[0].to_pylist()] == [["a", None], ["", ""]]
    assert expected(invalid) == {"e": 2, "f": 1}
    assert [piece.count for piece in in_pieces(invalid, 64)] == [2]
    assert [piece.count for piece in in_pieces(invalid, 2)] == [1, 1]
    assert divided(valid) == (valid, None)


@pytest.mark.parametrize(
    ("warnings", "is_expected"),
    [
        ([("Warning", 1265, "Data truncated for column 'e' at row 1")] * 2, True),
        # A column of text holds them as they are.
        ([], True),
        ([("Warning", 1265, "Data truncated for column 'e' at row 1")], False),
        ([("Warning", 1265, "Data truncated for column 'e' at row 1")] * 3, False),
        ([("Note", 1265, "Data truncated for column 'd' at row 1")] * 2, False),
        ([("Warning", 1264, "Out of range value for column 'e' at row 1")] * 2, False),
    ],
)
def test_a_warning_that_no_zero_explains_is_found(warnings: list[tuple[str, int, str]], is_expected: bool) -> None:
    assert (unexpected(warnings, {"e": 2}) is None) is is_expected
