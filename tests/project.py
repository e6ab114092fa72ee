"""What the rules of the project say about its files: the checks behind `tests/unit/test_project_rules.py`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
MAX_LINES: Final = 500
BANNED_NAMES: Final = frozenset({"utils", "util", "helpers", "helper", "common", "base", "core", "manager"})
DRIVERS: Final = frozenset(
    {"adbc_driver_manager", "adbc_driver_postgresql", "duckdb", "mariadb", "MySQLdb", "mysql", "psycopg", "pymysql"}
)
PROMISE: Final = re.compile(r"^### +(?P<title>.+)$", re.MULTILINE)
TEST_LINE: Final = re.compile(r"^Tests?: (?P<names>.+)$", re.MULTILINE)
TEST_NAME: Final = re.compile(r"`([^`]+)`")


def source_files() -> Iterator[Path]:
    """Every Python file of the project."""
    for folder in ("bench", "connectors", "cdcrep", "tests", "docs"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def imported_modules(source: str) -> set[str]:
    """Return the full names of the modules that a file imports, relative imports left out."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return modules


def foreign_imports(source: str) -> set[str]:
    """Return what a file of `cdcrep/` must not import and does: drivers and connectors."""
    return {name.split(".")[0] for name in imported_modules(source)} & {*DRIVERS, "cdcrep_connectors"}


def other_connectors(source: str, own: str) -> set[str]:
    """Return the connectors that a file of the connector `own` imports, `relational` excepted."""
    names = {name.split(".")[1] for name in imported_modules(source) if name.startswith("cdcrep_connectors.")}
    return names - {own, "relational"}


def sleeping_calls(source: str) -> list[int]:
    """Return the line numbers at which a file calls something named sleep."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if ast.unparse(call.func).split(".")[-1] == "sleep"]


def broken_promises(guarantees: str, root: Path = ROOT) -> list[str]:
    """Return what is wrong with a text of guarantees: promises without a test, tests that do not exist.

    A promise is a heading of the third level. Below it stands a line "Test: `tests/path.py::test_name`", or "Tests:"
    with several names in backticks; a name may go through a class (`path.py::TestClass::test_name`).
    """
    headings = list(PROMISE.finditer(guarantees))
    if not headings:
        return ["no promise at all: a promise is a heading of the third level"]
    wrong = []
    ends = [heading.start() for heading in headings[1:]] + [len(guarantees)]
    for heading, end in zip(headings, ends, strict=True):
        lines = TEST_LINE.findall(guarantees[heading.end() : end])
        names = [name for line in lines for name in TEST_NAME.findall(line)]
        if not names:
            wrong.append(f"{heading['title']}: names no test")
        wrong += [f"{heading['title']}: no test {name}" for name in names if not _test_exists(name, root)]
    return wrong


def _test_exists(name: str, root: Path) -> bool:
    path, *parts = name.partition("[")[0].split("::")
    if not parts or not parts[-1].startswith("test_") or not (root / path).is_file():
        return False
    body: list[ast.stmt] = ast.parse((root / path).read_text()).body
    for part in parts:
        found = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part]
        if not found:
            return False
        body = found[0].body
    return True
