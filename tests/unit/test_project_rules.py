"""The project keeps its own rules: sizes, names, imports, and a test behind every promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import project

GUARANTEES = project.ROOT / "docs" / "guarantees.md"


def test_no_file_is_longer_than_500_lines() -> None:
    sizes = {path.relative_to(project.ROOT): len(path.read_text().splitlines()) for path in project.source_files()}

    assert {path: size for path, size in sizes.items() if size > project.MAX_LINES} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [path for path in project.source_files() if {path.stem, path.parent.name} & project.BANNED_NAMES] == []


def test_the_engine_imports_no_driver_and_no_connector() -> None:
    # The demonstration is a user of databases, not a part of the engine; the next test keeps it at a distance.
    engine = [path for path in (project.ROOT / "cdcrep").rglob("*.py") if path.parent.name != "demo"]
    imports = {path.relative_to(project.ROOT): project.foreign_imports(path.read_text()) for path in engine}

    assert imports
    assert {path: names for path, names in imports.items() if names} == {}


def test_the_program_and_its_demonstration_load_without_any_driver() -> None:
    program = "import sys, cdcrep.cli, cdcrep.demo, cdcrep.demo.postgres_server; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert "cdcrep.demo" in loaded
    assert {name.split(".")[0] for name in loaded} & {*project.DRIVERS, "cdcrep_connectors"} == set()


def test_no_connector_imports_another() -> None:
    connectors = project.ROOT / "connectors" / "cdcrep_connectors"
    imports = {
        path.relative_to(connectors): project.other_connectors(path.read_text(), path.relative_to(connectors).parts[0])
        for path in connectors.rglob("*.py")
    }

    assert {path: names for path, names in imports.items() if names} == {}


def test_tests_wait_on_conditions_and_never_sleep() -> None:
    # The servers' own folder holds the one function that waits, and a proxy whose delays are its purpose.
    tests = [path for path in (project.ROOT / "tests").rglob("*.py") if path.parent.name != "servers"]

    assert {path.name: calls for path in tests if (calls := project.sleeping_calls(path.read_text()))} == {}


def test_every_promise_names_a_test_that_exists() -> None:
    assert project.broken_promises(GUARANTEES.read_text()) == []


def test_every_module_and_package_is_typed() -> None:
    for package in ("cdcrep", "connectors/cdcrep_connectors"):
        assert (project.ROOT / package / "py.typed").exists()


@pytest.mark.parametrize(
    "source", ["import psycopg", "from duckdb import connect", "def f():\n    import cdcrep_connectors.postgres"]
)
def test_a_foreign_import_is_found_wherever_it_stands(source: str) -> None:
    assert project.foreign_imports(source)


def test_own_imports_are_not_foreign() -> None:
    assert project.foreign_imports("import numpy\nfrom cdcrep.errors import DataError\nfrom . import fold") == set()


def test_another_connector_is_found_and_shared_code_is_not() -> None:
    source = "from cdcrep_connectors.duckdb import sink\nfrom cdcrep_connectors import mysql, relational"

    assert project.other_connectors(source, "postgres") == {"duckdb", "mysql"}


def test_a_sleep_is_found_under_any_name() -> None:
    assert project.sleeping_calls("from time import sleep\nsleep(1)\ntime.sleep(2)\nasleep()") == [2, 3]


@pytest.fixture
def tested_project(tmp_path: Path) -> Path:
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_a.py").write_text("def test_one(): ...\n\nclass TestB:\n    def test_two(self): ...\n")
    return tmp_path


def test_a_promise_with_existing_tests_is_kept(tested_project: Path) -> None:
    text = "# G\n\n### Once\n\nTests: `tests/test_a.py::test_one`, `tests/test_a.py::TestB::test_two[x]`\n"

    assert project.broken_promises(text, tested_project) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# Guarantees\n", "no promise at all"),
        ("### Once\n\nTrust us.\n\n### Twice\n\nTest: `tests/test_a.py::test_one`\n", "Once: names no test"),
        ("### Once\n\nTest: `tests/test_a.py::test_gone`\n", "Once: no test tests/test_a.py::test_gone"),
        ("### Once\n\nTest: `tests/test_b.py::test_one`\n", "Once: no test tests/test_b.py::test_one"),
        ("### Once\n\nTest: `tests/test_a.py`\n", "Once: no test tests/test_a.py"),
        ("### Once\n\nTest: `tests/test_a.py::TestB`\n", "Once: no test tests/test_a.py::TestB"),
    ],
)
def test_a_promise_without_an_existing_test_is_named(tested_project: Path, text: str, complaint: str) -> None:
    (found,) = project.broken_promises(text, tested_project)

    assert found.startswith(complaint)
