"""Applies the changes that a PARTIAL_UPDATE_ROWS event sends instead of a whole JSON document.

MySQL 9 source, `sql-common/json_diff.h`:   { operation 1 (0 replace, 1 insert, 2 remove)   path packed, bytes
[ value packed, bytes: binary JSON ] }   Paths are those of the server's JSON functions: `$.name[0]."other name"`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from cdcrep.errors import DataError
from cdcrep_connectors.mysql.binary_json import Node, parse_json, write_json
from cdcrep_connectors.mysql.fields import FieldReader

_LEG: Final = re.compile(r'\.(?:"((?:[^"\\]|\\.)*)"|([^.\["]+))|\[(\d+)\]', re.DOTALL)


class Operation(IntEnum):
    """What is done at a path."""

    REPLACE = 0
    INSERT = 1
    REMOVE = 2


@dataclass(frozen=True, slots=True)
class Difference:
    """One change of a document."""

    operation: Operation
    path: tuple[str | int, ...]
    """Names of members and numbers of elements, from the outside."""
    value: Node | None
    """None: nothing, for REMOVE."""


def read_differences(content: bytes) -> list[Difference]:
    """Read the changes of one document.

    Raises:
        DataError: they are none.
    """
    reader = FieldReader(content, "PARTIAL_UPDATE_ROWS event")
    found = []
    while reader.left:
        number = reader.integer(1)
        if number not in list(Operation):
            raise reader.error("a JSON document is changed in an unknown way")
        operation = Operation(number)
        path = _parse_path(reader.decoded(reader.packed_bytes()))
        value = None if operation is Operation.REMOVE else parse_json(reader.packed_bytes())
        found.append(Difference(operation, path, value))
    return found


def apply_differences(before: bytes, content: bytes) -> str:
    """Return the text of a document after its changes, given its binary form before them.

    Raises:
        DataError: either is none, or they do not fit.
    """
    document = parse_json(before)
    for difference in read_differences(content):
        document = _apply(document, difference)
    return write_json(document)


def _apply(document: Node, difference: Difference) -> Node:
    if not difference.path:
        if difference.operation is not Operation.REPLACE or difference.value is None:
            raise _unfit()
        return difference.value
    holder = document
    for leg in difference.path[:-1]:
        holder = _child(holder, leg)
    leg = difference.path[-1]
    if isinstance(holder, dict) and isinstance(leg, str):
        _change_member(holder, leg, difference)
    elif isinstance(holder, list) and isinstance(leg, int):
        _change_element(holder, leg, difference)
    else:
        raise _unfit()
    return document


def _change_member(holder: dict[str, Node], name: str, difference: Difference) -> None:
    if (name in holder) is (difference.operation is Operation.INSERT):
        raise _unfit()
    if difference.value is None:
        del holder[name]
        return
    holder[name] = difference.value
    if difference.operation is Operation.INSERT:
        # The server keeps members in order of length, then of bytes.
        ordered = sorted(holder.items(), key=lambda item: (len(item[0].encode()), item[0].encode()))
        holder.clear()
        holder.update(ordered)


def _change_element(holder: list[Node], at: int, difference: Difference) -> None:
    inserts = difference.operation is Operation.INSERT
    if at >= len(holder) + inserts:
        raise _unfit()
    if difference.value is None:
        del holder[at]
    elif inserts:
        holder.insert(at, difference.value)
    else:
        holder[at] = difference.value


def _child(holder: Node, leg: str | int) -> Node:
    if isinstance(holder, dict) and isinstance(leg, str) and leg in holder:
        return holder[leg]
    if isinstance(holder, list) and isinstance(leg, int) and leg < len(holder):
        return holder[leg]
    raise _unfit()


def _parse_path(path: str) -> tuple[str | int, ...]:
    legs: list[str | int] = []
    at = 1
    while at < len(path):
        match = _LEG.match(path, at)
        if not match or len(match[3] or "") > 10:
            raise _unfit()
        quoted, plain, number = match.groups()
        if number is not None:
            legs.append(int(number))
        elif quoted is not None:
            legs.append(_unquoted(quoted))
        else:
            legs.append(plain)
        at = match.end()
    if not path.startswith("$"):
        raise _unfit()
    return tuple(legs)


def _unquoted(name: str) -> str:
    try:
        return str(json.loads(f'"{name}"', strict=False))
    except ValueError:
        raise _unfit() from None


def _unfit() -> DataError:
    return DataError("the changes of a JSON document do not fit the document")
