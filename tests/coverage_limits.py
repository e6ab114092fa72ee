"""Holds what `make test COVERAGE=1` measured against its limits: python -m tests.coverage_limits

Everything is judged by its lines. Decoders, which read bytes of which any may be wrong, are judged by their branches.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import coverage

POSTGRES: Final = "connectors/cdcrep_connectors/postgres"

Measured = Mapping[str, Mapping[str, Any]]
"""File -> its "summary" of `coverage json`."""


@dataclass(frozen=True)
class Limit:
    """Of some files together, so much must be covered."""

    name: str
    files: Sequence[str]
    """Shell patterns; each has to match a file, or the limit would go when the file is renamed."""
    least_percent: float
    covered: str = "covered_lines"
    total: str = "num_statements"

    def judge(self, measured: Measured) -> tuple[bool, str]:
        """Tell whether the limit is kept, and what was found."""
        if unknown := [pattern for pattern in self.files if not any(fnmatch(file, pattern) for file in measured)]:
            return False, f"{self.name}: not measured: {', '.join(unknown)}"
        summaries = {f: s for f, s in measured.items() if any(fnmatch(f, pattern) for pattern in self.files)}
        covered = sum(summary[self.covered] for summary in summaries.values())
        total = sum(summary[self.total] for summary in summaries.values())
        found = f"{self.name}: {100 * covered / total:.1f} % of {total}, at least {self.least_percent:g} %"
        if 100 * covered >= self.least_percent * total:
            return True, found
        missed = {file: summary[self.total] - summary[self.covered] for file, summary in summaries.items()}
        worst = sorted((file for file in missed if missed[file]), key=lambda file: -missed[file])
        return False, "\n".join([found, *(f"    {file}: {missed[file]} missed" for file in worst)])


LIMITS: Final = (
    Limit("lines of the engine", ["cdcrep/*"], 90),
    Limit("lines of the connectors", ["connectors/*"], 90),
    Limit(
        "branches of the decoders",
        [
            "cdcrep/columns.py",
            f"{POSTGRES}/batches.py",
            f"{POSTGRES}/frames.py",
            f"{POSTGRES}/lsn.py",
            f"{POSTGRES}/pgoutput.py",
            f"{POSTGRES}/relation.py",
            f"{POSTGRES}/tuples.py",
            f"{POSTGRES}/window.py",
        ],
        98,
        "covered_branches",
        "num_branches",
    ),
)


def measured() -> Measured:
    """Read the data file that the last run with coverage has left."""
    data = coverage.Coverage()
    data.load()
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "coverage.json")
        data.json_report(outfile=str(report))
        return {file: found["summary"] for file, found in json.loads(report.read_text())["files"].items()}


if __name__ == "__main__":
    verdicts = [limit.judge(found) for found in [measured()] for limit in LIMITS]
    sys.stdout.writelines(f"{text}\n" for _, text in verdicts)
    sys.exit(not all(kept for kept, _ in verdicts))
