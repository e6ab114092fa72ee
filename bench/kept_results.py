"""Results in a file, so that workloads measured by several runs come together on one page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.processes import Usage
from bench.results import Outcome, Sample, Track


def write(file: Path, outcomes: Mapping[str, Outcome], facts: Mapping[str, str]) -> None:
    """Write what was measured, and on what."""
    kept = {"facts": dict(facts), "outcomes": [asdict(outcome) for outcome in outcomes.values()]}
    file.write_text(json.dumps(kept, indent=1))


def read(file: Path) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Return what `write` wrote; nothing where there is no file."""
    if not file.exists():
        return {}, {}
    kept = json.loads(file.read_text())
    outcomes = {
        one["workload"]: Outcome(one["workload"], one["title"], [_track(track) for track in one["tracks"]])
        for one in kept["outcomes"]
    }
    return outcomes, kept["facts"]


def _track(kept: Any) -> Track:
    samples = [Sample(sample["round"], sample["values"], Usage(**sample["usage"])) for sample in kept["samples"]]
    return Track(kept["name"], samples, kept["error"])
