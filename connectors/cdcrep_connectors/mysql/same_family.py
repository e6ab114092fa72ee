"""Which columns of MySQL and MariaDB keep their type in a target of the family: ENUM, SET and geometries.

A value travels as its labels, or as the bytes that a server keeps of a geometry (SRID and WKB), which both servers take
as they are or refuse. Labels are kept only where a text means one value: not where two labels read alike, nor where
one reads like an ENUM's 0, a value that was none of the labels, or like a SET without members.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Final

from cdcrep.table import ColumnType, Kind, Table
from cdcrep_connectors.mysql.native import NativeType, parse_native, quote_label, shown_label
from cdcrep_connectors.mysql.types import DIALECT, GEOMETRIES

LONGEST_LABEL: Final = 255
"""Characters that MySQL allows (manual, "The ENUM Type")."""

MOST_LABEL_BYTES: Final = 32_000
MOST_LABELLED: Final = 200
"""Of all ENUMs and SETs of a table: MariaDB keeps its definition in 65,535 bytes, and 255 different lists of labels."""

MOST_MEMBERS: Final = 64

KEPT: Final = frozenset({Kind.TEXT, Kind.BYTES})


def own_types(table: Table) -> list[str | None]:
    """Return the types that a table's columns keep, in order; None: one by its kind.

    Labels for which a definition has no room come last, so that a column that is added changes none before it.
    """
    types = [own_type(column.type, table.dialect) for column in table.columns]
    sizes = [len(type_.encode()) if type_ is not None and is_labelled(type_) else 0 for type_ in types]
    room = zip(itertools.accumulate(sizes), itertools.accumulate(map(bool, sizes)), strict=True)
    return [
        type_ if not size or (taken <= MOST_LABEL_BYTES and number <= MOST_LABELLED) else None
        for type_, size, (taken, number) in zip(types, sizes, room, strict=True)
    ]


@lru_cache(maxsize=4096)
def own_type(type_: ColumnType, dialect: str) -> str | None:
    """Return the type that a column of a source with this dialect keeps; None: the column gets one by its kind."""
    if dialect != DIALECT or type_.kind not in KEPT:
        return None
    native = parse_native(type_.native)
    if native.name in GEOMETRIES:
        return native.name.upper()
    if native.name in ("enum", "set") and _keeps_labels(native):
        return f"{native.name.upper()}({','.join(map(quote_label, native.labels))})"
    return None


def is_labelled(type_: str | None) -> bool:
    """Tell whether a type that `own_type` has returned is an ENUM or a SET."""
    return type_ is not None and type_.startswith(("ENUM(", "SET("))


def is_geometry(type_: str | None) -> bool:
    """Tell whether a type that `own_type` has returned is a geometry."""
    return type_ is not None and type_.lower() in GEOMETRIES


def is_same(declared: str, found: str) -> bool:
    """Tell whether a type that `own_type` has returned is the one that a catalogue shows."""
    ours, theirs = parse_native(declared), parse_native(found)
    return (ours.name, ours.labels) == (theirs.name, theirs.labels)


def _keeps_labels(native: NativeType) -> bool:
    labels = native.labels
    return (
        # Labels without a character set are bytes.
        native.charset not in (None, "binary")
        and len(set(labels)) == len(labels)
        and (native.name == "enum" or len(labels) <= MOST_MEMBERS)
        and all(map(_is_kept, labels))
    )


def _is_kept(label: str) -> bool:
    """Tell whether a label is a text of its own, and stays as it is in either server's catalogue."""
    # A question mark may stand for any character beyond U+FFFF. Trailing spaces are cut off.
    shown = "?" not in shown_label(label)
    return bool(label) and shown and not label.endswith(" ") and len(label) <= LONGEST_LABEL
