"""Key columns of text are remarked where the source may have longer values than an index of the target holds."""

from __future__ import annotations

import pytest

from cdcrep.table import Column, ColumnType, Kind, Table, UserType
from cdcrep_connectors.mysql.column_types import MYSQL, limited_keys

TEXT = ColumnType(Kind.TEXT, "text")
MOOD = UserType("shop", "mood", "enum", ("glad", "sad"))


def keyed(*types: ColumnType) -> Table:
    columns = tuple(Column(f"c{i}", type_, nullable=False) for i, type_ in enumerate(types))
    return Table("shop", "t", columns, tuple(column.name for column in columns), "postgresql")


@pytest.mark.parametrize(
    ("type_", "remarked"),
    [
        (TEXT, True),
        (ColumnType(Kind.TEXT, "character varying"), True),
        (ColumnType(Kind.TEXT, "character varying(768)"), False),
        (ColumnType(Kind.TEXT, "character varying(769)"), True),
        (ColumnType(Kind.TEXT, "character(10)"), False),
        (ColumnType(Kind.TEXT, '"char"'), False),
        (ColumnType(Kind.TEXT, "name"), False),
        (ColumnType(Kind.ARRAY, "character varying(10)[]"), True),
        (ColumnType(Kind.ARRAY, "name[]"), True),
        (ColumnType(Kind.VERBATIM, '"shop"."mood"', user_type=MOOD), False),
        (ColumnType(Kind.VERBATIM, '"shop"."pair"'), True),
        (ColumnType(Kind.TEXT, "varchar(100) character set latin1"), False),
        (ColumnType(Kind.TEXT, "varchar(3000) character set latin1"), True),
        (ColumnType(Kind.TEXT, "enum('a','b') character set utf8mb4"), False),
        (ColumnType(Kind.TEXT, "set('a','b') character set utf8mb4"), True),
        (ColumnType(Kind.TEXT, "inet6"), False),
        (ColumnType(Kind.BYTES, "binary(16)"), False),
        (ColumnType(Kind.BYTES, "varbinary(3072)"), False),
        (ColumnType(Kind.BYTES, "bytea"), True),
        (ColumnType(Kind.INT32, "integer"), False),
    ],
)
def test_a_key_is_remarked_unless_its_own_type_is_short_enough(type_: ColumnType, remarked: bool) -> None:
    assert bool(limited_keys(keyed(type_), MYSQL)) is remarked


def test_columns_of_a_key_share_the_index() -> None:
    short, half = ColumnType(Kind.TEXT, "varchar(20)"), ColumnType(Kind.TEXT, "varchar(500)")

    found = limited_keys(keyed(short, half), MYSQL)

    assert [(column.name, type_) for column, type_ in found] == [("c1", "VARCHAR(384)")]
