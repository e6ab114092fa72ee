"""The examples of docs/writing-a-connector.md run as they are printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cdcrep.testing import contract, crash
from tests.servers.waiting import DEADLINE_SECONDS

PAGE = Path(__file__).parents[2] / "docs" / "writing-a-connector.md"
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# file: (?P<name>\S+)\n")


@pytest.mark.slow
def test_the_examples_run_and_pass_the_contract(tmp_path: Path) -> None:
    blocks = [match["code"] for match in BLOCK.finditer(PAGE.read_text())]
    for number, block in enumerate(blocks):
        named = FILE.match(block)
        (tmp_path / (named["name"] if named else f"test_block{number}.py")).write_text(block)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--rootdir", ".", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )

    assert len(blocks) == 4
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b[78]\d passed", done.stdout)


def test_every_name_that_the_page_mentions_exists() -> None:
    text = PAGE.read_text()

    assert set(re.findall(r"CDCREP_BROKEN=([a-z-]+)", text)) == crash.DEFECTS.keys()
    assert {name for name in contract.__all__ if name.endswith("Contract")} <= set(re.findall(r"\w+Contract", text))
    mentioned = set(re.findall(r"`((?:sink|load)\.[a-z_]+)`", text))
    assert mentioned <= set(crash.points("cdcrep_connectors"))
