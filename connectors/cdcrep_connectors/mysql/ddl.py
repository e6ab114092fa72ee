"""Reads the statements that the binary log holds as text, as far as they matter to tables that are followed.

A statement that names no followed table, or cannot change one, passes. TRUNCATE and nullable columns added at the end
are understood; anything else that names a followed table stops the stream. No parser: in doubt a statement counts as
one that changes every followed table whose name stands in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cdcrep.errors import DataError, DivergedError
from cdcrep.table import TableId

_PARTS: Final = (
    r"(?P<space>\s+|\#[^\n]*|--(?=\s|$)[^\n]*|/\*(?!M?!).*?(?:\*/|$)|/\*M?!\d*|\*/)"
    r"|`(?P<quoted>(?:[^`]|``)*)`"
    r"|(?P<string>'(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\"\"|\\.)*\")"
    r"|(?P<word>[\w$]+)"
    r"|(?P<other>.)"
)
_TOKEN: Final = re.compile(_PARTS, re.DOTALL)
_PLAIN_TOKEN: Final = re.compile(_PARTS.replace(r"|\\.", "").replace(r"\\", ""), re.DOTALL)
"""With NO_BACKSLASH_ESCAPES."""

ROW_FORMAT: Final = "SET GLOBAL binlog_format = ROW, end the sessions that began before, and copy the tables anew"

_ROW_CHANGES: Final = frozenset(["insert", "update", "delete", "replace", "load", "with", "call", "select", "do"])
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


class Statement:
    """A statement, cut into words; `backslashes`: they escape, as without NO_BACKSLASH_ESCAPES."""

    def __init__(self, text: str, schema: str, *, backslashes: bool = True) -> None:
        self.tokens = _innermost(list(_tokens(text, _TOKEN if backslashes else _PLAIN_TOKEN)))
        self.schema = schema
        """The session's database."""

    @property
    def first(self) -> str:
        """The word that says what it does."""
        return self.tokens[0].keyword if self.tokens else ""

    @property
    def changes_rows(self) -> bool:
        """Tell whether it may change rows of tables that it does not name."""
        copies = self.first == "create" and any(token.keyword in ("select", "with") for token in self.tokens)
        return copies or self.first in _ROW_CHANGES or self.tokens[:1] == [Token("(", "other")]

    @property
    def changes_objects(self) -> bool:
        """Tell whether it may change which views, triggers and routines there are."""
        return self.first in ("create", "alter", "drop", "rename")


def truncated_table(
    statement: Statement, followed: Collection[TableId], ways: Callable[[], Collection[TableId]] = tuple
) -> TableId | None:
    """Return the followed table that a statement empties; None: the statement changes none.

    `ways` are what else a statement may change them through: views, routines, tables with triggers (`indirect`).

    Raises:
        DivergedError: it changes a followed table in a way that is not carried out.
        DataError: it is a change of rows logged as text.
    """
    tokens, first = statement.tokens, statement.first
    named = _named(_target(statement), statement.schema, followed)
    if not named and followed and statement.changes_rows and (used := _named(tokens, statement.schema, ways())):
        raise DataError(
            f"a change that reaches followed tables through {used[0]} was logged as its statement, not as rows",
            hint=ROW_FORMAT,
        )
    if not named or not _may_change(tokens):
        return None
    table = named[0]
    if first == "truncate" and len(named) == 1:
        return table
    if first == "alter" and len(named) == 1 and _only_adds(tokens):
        return None
    if first == "create" and _creates_only(tokens):
        return None
    if first in _ROW_CHANGES:
        raise DataError(f"{table}: a change was logged as its statement, not as rows", hint=ROW_FORMAT)
    what = " ".join(token.keyword for token in tokens[:2] if token.keyword).upper()
    raise DivergedError(
        f"{table}: the source ran {what or 'a statement'}, which is not carried out in the target",
        hint="make the same change in the target and copy the table anew, or leave the table out",
    )


def _tokens(statement: str, pattern: re.Pattern[str]) -> Iterator[Token]:
    for match in pattern.finditer(statement):
        kind = str(match.lastgroup)
        if kind == "quoted":
            yield Token(match["quoted"].replace("``", "`"), kind)
        elif kind != "space":
            yield Token(match[0], kind)


def _innermost(tokens: list[Token]) -> list[Token]:
    """Leave out what MariaDB lets stand in front of a statement: SET STATEMENT … FOR, ANALYZE [FORMAT = …]."""
    while [token.keyword for token in tokens[:2]] == ["set", "statement"]:
        depth = 0
        for i, token in enumerate(tokens):
            depth += (token.text == "(") - (token.text == ")") if token.kind == "other" else 0
            if token.keyword == "for" and not depth:
                tokens = tokens[i + 1 :]
                break
        else:
            break
    analyzed = tokens[4:] if [token.text.lower() for token in tokens[1:3]] == ["format", "="] else tokens[1:]
    is_analyzed = tokens[:1] and tokens[0].keyword == "analyze" and analyzed and analyzed[0].keyword in _ROW_CHANGES
    return analyzed if is_analyzed else tokens


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


def _target(statement: Statement) -> Sequence[Token]:
    """Return the tokens among which a table stands that is changed: all but where INSERT and REPLACE say it."""
    tokens = statement.tokens
    if statement.first not in ("insert", "replace"):
        return tokens
    begin = 1
    while begin < len(tokens) and tokens[begin].keyword in (
        "low_priority",
        "delayed",
        "high_priority",
        "ignore",
        "into",
    ):
        begin += 1
    return tokens[begin : begin + (3 if tokens[begin + 1 : begin + 2] == [Token(".", "other")] else 1)]


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
