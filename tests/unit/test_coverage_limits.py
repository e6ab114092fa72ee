"""Limits of coverage are missed by a little too little, and by files that are not there."""

from __future__ import annotations

from tests.coverage_limits import LIMITS, Limit, Measured
from tests.project import ROOT

LINES = Limit("lines", ["engine/*", "other.py"], 90)
BRANCHES = Limit("branches", ["engine/*"], 98, "covered_branches", "num_branches")


def measured(**covered_lines: int) -> Measured:
    return {
        f"{name.replace('_', '/')}.py": {
            "covered_lines": covered,
            "num_statements": 100,
            "covered_branches": covered // 2,
            "num_branches": 50,
        }
        for name, covered in covered_lines.items()
    }


def test_files_are_judged_together_and_others_are_not() -> None:
    assert LINES.judge(measured(engine_a=100, other=80, unrelated=0)) == (True, "lines: 90.0 % of 200, at least 90 %")


def test_what_is_missed_is_named_with_the_worst_file_first() -> None:
    kept, found = LINES.judge(measured(engine_a=95, engine_b=100, other=74))

    assert not kept
    assert found.splitlines() == [
        "lines: 89.7 % of 300, at least 90 %",
        "    other.py: 26 missed",
        "    engine/a.py: 5 missed",
    ]


def test_branches_are_judged_by_branches() -> None:
    assert BRANCHES.judge(measured(engine_a=98))[0]
    assert not BRANCHES.judge(measured(engine_a=96))[0]


def test_a_file_that_was_not_measured_is_no_success() -> None:
    assert LINES.judge(measured(engine_a=100)) == (False, "lines: not measured: other.py")


def test_the_limits_name_files_that_exist() -> None:
    assert [file for limit in LIMITS for file in limit.files if not list(ROOT.glob(file))] == []
