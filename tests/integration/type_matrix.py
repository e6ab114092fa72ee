"""Tables of every type with its extremes, whose values reach a target by every path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tests.integration.test_postgres_types import HOSTILE_SETTINGS, USER_TYPES
from tests.integration.test_postgres_types import VALUES as BUILTIN
from tests.servers.database import Database

MORE: Final[Mapping[str, Sequence[str]]] = {
    "real": ["1.17549435e-38", "0.3", "-1e-45", "9.999999e9"],
    "double precision": ["2.2250738585072014e-308", "0.30000000000000004", "-1.7976931348623157e308", "5e-324"],
    "numeric": ["1.10", "-0.0", "1" + "0" * 999, "0." + "0" * 999 + "1", "-" + "7" * 1000 + "." + "3" * 1000],
    "numeric(38,10)": ["9" * 28 + "." + "9" * 10, "0", "-1.5"],
    "timetz": ["24:00:00+00", "00:00:00.000001-12"],
    "timestamptz": ["2024-06-01 12:00:00.5+02", "0001-12-31 23:59:59 BC"],
    "interval": ["-1 mons +1 day -00:00:00.000001", "1 mon -30 days", "-178000000 years", "1000000:00:00"],
    "json": ['{"z": 1, "a": {"y": 123456789012345678901234567890.1}}', "  1.10  "],
    "jsonb": ['{"z": 1, "aa": 1e2, "b": {"y": 9007199254740993}}', '"\\u00e9"', "-0.0"],
    "path": ["[(NaN,-0),(1e-300,2)]"],
    "tsvector": ["'it''s':3 'a b':1A,2B 'c\\\\d':16383"],
    "int8range": ["[-9223372036854775808,9223372036854775807)"],
    "tsrange": ["empty", '(,"2024-01-01 00:00:00.5"]'],
    "datemultirange": ["{[2000-01-01,2000-02-01),[2001-01-01,infinity)}"],
    "nummultirange": ["{(1.0,2.50],[3,)}"],
    "tsmultirange": ["{}"],
    "tstzmultirange": ['{["2000-01-01 00:00:00+00","2000-01-02 00:00:00+00")}'],
    "int4multirange": ["{[1,3)}"],
    "regoper": ["pg_catalog.||/"],
    "regoperator": ["+(integer,integer)"],
    "regprocedure": ["abs(integer)"],
    "regrole": ["pg_monitor"],
    "regnamespace": ["pg_catalog"],
    "regconfig": ["english"],
    "regdictionary": ["simple"],
    "regcollation": ['"C"'],
    "aclitem": ["=r/pg_monitor"],
    "public.deep": ['("(1,""a, \\"\\"b"",{sad})","{""(2,,)"",NULL}",1.50)'],
    "public.span_multirange": ["{[1.5,2.5),[7,8)}"],
}
SINCE: Final[Mapping[int, Mapping[str, Sequence[str]]]] = {
    15: {"numeric(3,-5)": ["12300000", "-99900000", "0"], "numeric(3,5)": ["0.00123"]},
    17: {"interval": ["infinity", "-infinity"]},
}
MORE_USER_TYPES: Final = """
CREATE TYPE deep AS (a pair, b pair[], c price);
CREATE DOMAIN over_domain AS price;
CREATE DOMAIN moods AS mood[];
"""
OVER_USER_TYPES: Final[Mapping[str, Sequence[str]]] = {
    "public.over_domain": ["1.50", "NaN"],
    "public.moods": ['{sad,NULL,"so, \\"so\\""}'],
}
THEMSELVES_ARRAYS: Final = frozenset({"int2vector", "oidvector", "public.nested", "public.moods"})


def is_array(type_: str) -> bool:
    return type_.endswith("[]") or type_ in THEMSELVES_ARRAYS


def values(major: int) -> dict[str, list[str]]:
    """Collect the values of every type that servers of this version have."""
    merged: dict[str, list[str]] = {}
    for part in (BUILTIN, MORE, OVER_USER_TYPES, *(part for since, part in SINCE.items() if major >= since)):
        for type_, literals in part.items():
            merged.setdefault(type_, []).extend(literals)
    return merged


class Matrix:
    """Tables with values of every type.

    `t7` holds the values of one type under a key, `arrays` an array of them in each column, and `bag`, which has no
    key, one value of each type in a row.
    """

    def __init__(
        self,
        database: Database,
        major: int,
        *,
        without: Mapping[str, Sequence[str]] | None = None,
        nested_arrays: bool = True,
    ) -> None:
        """Take the values that a server of this version has, `without` some; arrays of several dimensions if asked."""
        self.database = database
        left_out = without or {}
        self.values = {
            type_: [literal for literal in literals if literal not in left_out.get(type_, ())]
            for type_, literals in values(major).items()
        }
        self.types = {f"t{number}": type_ for number, type_ in enumerate(self.values)}
        self.elements = [name for name, type_ in self.types.items() if not is_array(type_)]
        self._nested_arrays = nested_arrays

    def create(self) -> None:
        """Create the tables; sessions of this database write values in other forms than usual."""
        for setting, value in HOSTILE_SETTINGS.items():
            self.database.execute(f"ALTER DATABASE {self.database.name} SET {setting} = '{value}'")
        arrays = ", ".join(f"{name} {self.types[name]}[]" for name in self.elements)
        columns = ", ".join(f"{name} {type_}" for name, type_ in self.types.items())
        self._execute(
            USER_TYPES + MORE_USER_TYPES,
            *(f"CREATE TABLE {name} (id int PRIMARY KEY, v {type_})" for name, type_ in self.types.items()),
            f"CREATE TABLE arrays (id int PRIMARY KEY, {arrays})",
            f"CREATE TABLE bag ({columns}); ALTER TABLE bag REPLICA IDENTITY FULL",
        )

    def insert(self, first: int) -> None:
        """Insert NULL and every value with keys from `first` on, and arrays and rows of them."""
        with self.database.connect() as connection, connection.transaction(), connection.cursor() as cursor:
            for name, type_ in self.types.items():
                cursor.executemany(
                    f"INSERT INTO {name} VALUES (%s, CAST(%s AS {type_}))".encode(),
                    list(enumerate([None, *self.values[type_]], first)),
                )
            for statement in (*self._arrays(first), *self._rows(first)):
                cursor.execute(statement.encode())

    def _arrays(self, first: int) -> Iterator[str]:
        found = {name: f"(SELECT array_agg(v ORDER BY id) FROM {name} WHERE id >= {first})" for name in self.elements}
        yield f"INSERT INTO arrays SELECT {first}, {', '.join(found.values())}"
        empty = ", ".join(["'{}'"] * len(found))
        yield f"INSERT INTO arrays VALUES ({first + 1}, {empty})"
        if self._nested_arrays:
            twice = ", ".join(f"ARRAY[{array}, {array}]" for array in found.values())
            yield f"INSERT INTO arrays SELECT {first + 2}, {twice}"
            yield f"INSERT INTO arrays (id) VALUES ({first + 3})"
            from_minus_one = ", ".join(f"{name}[-1:0] = {array}" for name, array in found.items())
            yield f"UPDATE arrays SET {from_minus_one} WHERE id = {first + 3}"

    def _rows(self, first: int) -> Iterator[str]:
        for number in range(1 + max(map(len, self.values.values()))):
            row = ", ".join(f"(SELECT v FROM {name} WHERE id = {first + number})" for name in self.types)
            yield f"INSERT INTO bag SELECT {row} FROM generate_series(1, 2)"

    def prepare_updates(self) -> None:
        """Insert rows that `change` will update."""
        self._execute(
            *(
                f"INSERT INTO {name} SELECT id + 1000, NULL FROM {name} WHERE id BETWEEN 1000 AND 1999; "
                f"INSERT INTO {name} SELECT id + 2000, v FROM {name} WHERE id BETWEEN 1000 AND 1999"
                for name in self.types
            )
        )

    def change(self) -> None:
        """Give the copied NULLs values and the values NULL; remove or change one copy of each row without a key."""
        self._execute(
            *(
                f"UPDATE {name} SET v = o.v FROM {name} o WHERE {name}.id BETWEEN 2000 AND 2999 "
                f"AND o.id = {name}.id - 1000; UPDATE {name} SET v = NULL WHERE id BETWEEN 3000 AND 3999"
                for name in self.types
            ),
            "DELETE FROM bag WHERE ctid IN (SELECT DISTINCT ON (bag::text) ctid FROM bag)",
            "UPDATE bag SET t0 = NOT t0 WHERE ctid IN (SELECT ctid FROM bag ORDER BY bag::text LIMIT 5)",
        )

    def _execute(self, *statements: str) -> None:
        with self.database.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())
