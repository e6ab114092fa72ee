"""Finds what a statement may change followed tables through without naming them: views, triggers, routines, cascades.

Only matters where a change of rows is logged as its statement. What was dropped since it was logged is not found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from cdcrep.table import TableId

DEFINITIONS: Final = """
SELECT table_schema, table_name, view_definition FROM information_schema.views
UNION ALL SELECT event_object_schema, event_object_table, action_statement FROM information_schema.triggers
UNION ALL SELECT routine_schema, routine_name, routine_definition FROM information_schema.routines
"""

CASCADES: Final = """
SELECT constraint_schema, table_name, constraint_name, unique_constraint_schema, referenced_table_name
FROM information_schema.referential_constraints
WHERE delete_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT') OR update_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
"""

_WORD: Final = re.compile(r"[\w$]+")


def find_ways(fetch: Callable[[str], Sequence[tuple[Any, ...]]], followed: Collection[TableId]) -> frozenset[TableId]:
    """Return the objects a change of which may be one of followed tables; `fetch` runs a query.

    A definition that the user may not read may hold anything. Names count wherever they stand in a definition.
    """
    definitions = [
        (TableId(str(schema), str(name)), None if text is None else frozenset(_WORD.findall(str(text).casefold())))
        for schema, name, text in fetch(DEFINITIONS)
        if str(schema) not in ("sys", "mysql", "information_schema", "performance_schema")
    ]
    parents = [
        (TableId(str(above), str(parent)), frozenset([str(child).casefold()]))
        for _, child, _, above, parent in fetch(CASCADES)
    ]
    ways: set[TableId] = set()
    names = _words(followed)
    while True:
        found = {id_ for id_, words in [*definitions, *parents] if words is None or words & names}
        if found <= ways:
            return frozenset(ways)
        ways |= found
        names |= _words(found)


def _words(ids: Collection[TableId]) -> set[str]:
    """Return the words of which names are made: those with spaces have several."""
    return {word for id_ in ids for word in _WORD.findall(id_.name.casefold())}
