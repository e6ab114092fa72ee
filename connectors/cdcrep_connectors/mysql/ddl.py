"""Reads the statements that the binary log holds as text, as far as they matter to tables that are followed.

A statement that names no followed table, or cannot change one, passes. TRUNCATE and nullable columns added at the end
are understood; anything else that names a followed table stops the stream. No parser: in doubt a statement counts as
one that changes every followed table whose name stands in it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cdcrep.errors import DataError, DivergedError
from cdcrep.table import TableId

_TOKEN: Final = re.compile(
    r"(?P<space>\s+|\#[^\n]*|--(?=\s|$)[^\n]*|/\*(?!M?!).*?(?:\*/|$)|/\*M?!\d*|\*/)"
    r"|`(?P<quoted>(?:[^`]|``)*)`"
    r"|(?P<string>'(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\"\"|\\.)*\")"
    r"|(?P<word>[\w$]+)"
    r"|(?P<other>.)",
    re.DOTALL,
)

_HARMLESS: Final = frozenset(
    [
        "grant",
        "revoke",
        "analyze",
        "optimize",
        "repair",
        "check",
        "checksum",
        "flush",
        "set",
        "savepoint",
        "release",
        "use",
        "begin",
        "commit",
        "start",
        "rollback",
        "xa",
        "comment",
        "explain",
        "show",
        "kill",
        "reset",
        "lock",
        "unlock",
    ]
)
_OBJECTS: Final = frozenset(
    [
        "view",
        "user",
        "role",
        "procedure",
        "function",
        "trigger",
        "event",
        "index",
        "server",
        "sequence",
        "resource",
        "package",
        "tablespace",
        "logfile",
        "undo",
        "spatial",
        "reference",
        "library",
    ]
)
"""What CREATE, ALTER and DROP can name besides tables and databases."""
_MODIFIERS: Final = frozenset(
    ["or", "replace", "unique", "fulltext", "online", "offline", "algorithm", "definer", "sql", "security"]
)

_ADDED: Final = re.compile(
    r"add (?:column )?(?:if not exists )?\(?name type(?: args)?(?: (?:unsigned|signed|character set word|charset word"
    r"|collate word|null|default null|comment string))*\)?"
)
_TYPES: Final = frozenset(
    [
        "tinyint",
        "smallint",
        "mediumint",
        "int",
        "integer",
        "bigint",
        "decimal",
        "numeric",
        "float",
        "double",
        "bit",
        "year",
        "date",
        "time",
        "datetime",
        "timestamp",
        "char",
        "varchar",
        "tinytext",
        "text",
        "mediumtext",
        "longtext",
        "binary",
        "varbinary",
        "tinyblob",
        "blob",
        "mediumblob",
        "longblob",
        "enum",
        "set",
        "json",
        "uuid",
        "inet4",
        "inet6",
    ]
)


@dataclass(frozen=True)
class Token:
    """A word, a name, a string or a sign."""

    text: str
    kind: str
    """`word`, `quoted`, `string`, `other`."""

    @property
    def keyword(self) -> str:
        """The word in lower case; empty for all others."""
        return self.text.lower() if self.kind == "word" else ""


def truncated_table(statement: str, schema: str, followed: Collection[TableId]) -> TableId | None:
    """Return the followed table that a statement empties; None: the statement changes none.

    Raises:
        DivergedError: it changes a followed table in a way that is not carried out.
        DataError: it is a change of rows logged as text.
    """
    tokens = list(_tokens(statement))
    named = _named(tokens, schema, followed)
    if not named or not _may_change(tokens):
        return None
    first = tokens[0].keyword
    table = named[0]
    if first == "truncate" and len(named) == 1:
        return table
    if first == "alter" and len(named) == 1 and _only_adds(tokens):
        return None
    if first == "create" and _creates_only(tokens):
        return None
    if first in ("insert", "update", "delete", "replace", "load", "with", "call"):
        raise DataError(
            f"{table}: a change was logged as its statement, not as rows",
            hint="SET GLOBAL binlog_format = ROW, end the sessions that began before, and copy the table anew",
        )
    what = " ".join(token.keyword for token in tokens[:2] if token.keyword).upper()
    raise DivergedError(
        f"{table}: the source ran {what or 'a statement'}, which is not carried out in the target",
        hint="make the same change in the target and copy the table anew, or leave the table out",
    )


def _tokens(statement: str) -> Iterator[Token]:
    for match in _TOKEN.finditer(statement):
        kind = str(match.lastgroup)
        if kind == "quoted":
            yield Token(match["quoted"].replace("``", "`"), kind)
        elif kind != "space":
            yield Token(match[0], kind)


def _named(tokens: Sequence[Token], schema: str, followed: Collection[TableId]) -> list[TableId]:
    """Return the followed tables whose name, or whose database's in DROP DATABASE, stands in a statement.

    A name in double quotes is one with ANSI_QUOTES. Case is ignored: whether it counts is the server's setting.
    """
    names = [token.text.strip('"').replace('""', '"').casefold() for token in tokens]
    found = []
    of_database = len(tokens) > 1 and tokens[0].keyword == "drop" and tokens[1].keyword in ("database", "schema")
    for table in sorted(followed):
        wanted, database = table.name.casefold(), table.schema.casefold()
        for i, name in enumerate(names):
            if of_database and name == database:
                found.append(table)
                break
            if name == wanted:
                qualifier = names[i - 2] if i >= 2 and names[i - 1] == "." else schema.casefold()
                if qualifier == database:
                    found.append(table)
                    break
    return found


def _may_change(tokens: Sequence[Token]) -> bool:
    """Tell whether a statement is of a kind that can change tables or rows."""
    first = tokens[0].keyword
    if first in _HARMLESS:
        return False
    if first not in ("create", "alter", "drop"):
        return True
    for token in tokens[1:]:
        if token.keyword in _OBJECTS:
            return False
        if token.keyword == "temporary":
            return False
        if token.keyword not in _MODIFIERS and token.kind == "word":
            return True
    return True


def _creates_only(tokens: Sequence[Token]) -> bool:
    """Tell whether a statement creates a table only if there is none, or is CREATE TABLE of one it is named after."""
    words = [token.keyword for token in tokens[:5]]
    return words == ["create", "table", "if", "not", "exists"] and not any(t.keyword == "select" for t in tokens)


def _only_adds(tokens: Sequence[Token]) -> bool:
    """Tell whether ALTER TABLE does nothing but add nullable columns at the end, or switches keys off and on."""
    if [token.keyword for token in tokens[:2]] != ["alter", "table"]:
        return False
    at = 5 if len(tokens) > 4 and tokens[3].text == "." else 3
    actions: list[list[Token]] = [[]]
    depth = 0
    for token in tokens[at:]:
        depth += (token.text == "(") - (token.text == ")") if token.kind == "other" else 0
        if token.text == "," and token.kind == "other" and not depth:
            actions.append([])
        elif token.text != ";" or token.kind != "other":
            actions[-1].append(token)
    return all(_ADDED.fullmatch(form) or form in _KEYS for form in map(_form, actions))


_KEYS: Final = frozenset({"disable keys", "enable keys"})


def _form(action: Sequence[Token]) -> str:
    """Write an action of ALTER TABLE with its name and type told apart from the words that matter."""
    words: list[str] = []
    i = 0
    while i < len(action):
        token, before = action[i], words[-1] if words else ""
        if token.text == "(" and token.kind == "other" and before == "type":
            while i < len(action) and not (action[i].text == ")" and action[i].kind == "other"):
                i += 1
            words.append("args")
        elif before == "name":
            words.append("type" if token.keyword in _TYPES else "?")
        elif before in ("add", "column", "exists", "add ("):
            plain = token.keyword in ("column", "if") and before in ("add", "column") and i + 1 < len(action)
            is_word = plain and (token.keyword == "if" or action[i + 1].kind in ("quoted", "word"))
            words.append(token.keyword if is_word else "name")
        elif before in ("set", "charset", "collate") and token.kind in ("word", "quoted", "string"):
            words.append("word")
        elif token.kind == "string":
            words.append("string")
        else:
            words.append(token.keyword or token.text)
        i += 1
    return " ".join(words)
