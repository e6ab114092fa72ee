"""What the benchmark concludes from its figures and what it shows of them."""

from __future__ import annotations

import io
from pathlib import Path

import click
import numpy as np
import pytest
from rich.console import Console

from bench import kept_results, report
from bench.__main__ import chosen
from bench.consumers.consumer import Setting
from bench.consumers.dump_readers import CdcrepDecode
from bench.latency import latencies_ms
from bench.plan import WORKLOADS
from bench.processes import Usage
from bench.requirements import NATIVE, RAW, REQUIREMENTS, TO_DUCKDB, TO_POSTGRES
from bench.results import RATE, Outcome, Sample, Track
from bench.tables import difference
from bench.waiting import BenchError
from bench.workloads import Workload


def track(name: str, *rates: float, error: str = "", rss: float | None = None) -> Track:
    samples = [Sample(number, {RATE: rate}, Usage({}, rss)) for number, rate in enumerate(rates, 1)]
    return Track(name, samples, error)


def outcomes(*tracks: Track) -> dict[str, Outcome]:
    return {"W1": Outcome("W1", "inserts", list(tracks))}


def shown(found: dict[str, Outcome]) -> str:
    output = io.StringIO()
    report.show(Console(file=output, width=200), found)
    return output.getvalue()


def test_a_ratio_is_the_median_of_the_ratios_within_a_round() -> None:
    mine, other = track(TO_POSTGRES, 100.0, 50.0, 90.0), track(NATIVE, 100.0, 200.0, 300.0)

    assert mine.ratio(other) == 0.3


def test_a_round_that_only_one_side_has_is_left_out_of_the_ratio() -> None:
    mine, other = track(TO_POSTGRES, 100.0, 1.0), track(NATIVE, 200.0)

    assert mine.ratio(other) == 0.5


def test_a_track_with_an_error_has_no_figures() -> None:
    wrong, other = track(TO_DUCKDB, 100.0, error="the target differs", rss=10.0), track(RAW, 100.0)

    assert [wrong.median(RATE), wrong.extremes(RATE), wrong.peak_rss_mib(), wrong.ratio(other)] == [None] * 4
    assert other.ratio(wrong) is None


def test_the_figures_of_a_target_that_differs_are_not_shown() -> None:
    text = shown(outcomes(track(RAW, 9000.0), track(TO_DUCKDB, 7777.0, error="the target differs from the source")))

    assert "7,777" not in text
    assert "ERROR W1: cdcrep to DuckDB: the target differs from the source" in text
    assert "not measured" in text


def test_a_requirement_counts_as_met_at_its_bound_and_not_below_it() -> None:
    at_the_bound = shown(outcomes(track(NATIVE, 1000.0), track(TO_POSTGRES, 800.0, rss=300.0)))
    below_it = shown(outcomes(track(NATIVE, 1000.0), track(TO_POSTGRES, 799.0, rss=300.1)))

    assert at_the_bound.count("yes") == 2
    assert "NO" not in at_the_bound
    assert below_it.count("NO") == 2


def test_the_page_names_the_machine_the_date_and_the_command() -> None:
    page = report.markdown(outcomes(track(RAW, 9000.0)), {"processor": "a fast one"}, "2026-01-31", "python -m bench")

    assert "- processor: a fast one" in page
    assert "- date: 2026-01-31" in page
    assert "- command: `python -m bench`" in page
    assert "| raw receive | 9,000 |" in page


def test_a_commit_became_visible_with_the_first_look_that_showed_its_key_or_a_later_one() -> None:
    latencies = latencies_ms([1.0, 1.005, 1.010], 7, [(1.006, 7), (1.012, 9)])

    np.testing.assert_allclose(latencies, [6.0, 7.0, 2.0], atol=1e-6)


def test_a_difference_is_named_by_table() -> None:
    assert difference({"public.a": (2, 10)}, {"public.a": (2, 10)}) == ""
    assert difference({"public.a": (2, 10)}, {"public.a": (1, 10)}) == "public.a has 1 rows instead of 2"
    assert "other values" in difference({"public.a": (2, 10)}, {"public.a": (2, 11)})


def test_a_decoder_that_finds_other_rows_than_were_written_has_no_figures() -> None:
    decoder = CdcrepDecode.__new__(CdcrepDecode)
    decoder._setting = Setting(None, Workload("W1m-mysql", "", 1000, [], [], print, print), "w1m_mysql")  # type: ignore[arg-type]

    decoder.check(1001)
    with pytest.raises(BenchError, match="999 rows instead of 1,001"):
        decoder.check(999)


def test_a_workload_of_both_kinds_of_servers_is_chosen_by_its_short_name() -> None:
    assert chosen("W1m,W5") == ("W5", "W1m-mariadb", "W1m-mysql")
    with pytest.raises(click.BadParameter, match="W9"):
        chosen("W1m,W9")


def test_every_workload_has_requirements() -> None:
    assert {requirement.workload for requirement in REQUIREMENTS} == set(WORKLOADS)


def test_results_of_several_runs_come_together(tmp_path: Path) -> None:
    found, file = outcomes(track(RAW, 1.0, 2.0), track(TO_DUCKDB, 3.0, error="it differs", rss=7.5)), tmp_path / "kept"

    assert kept_results.read(file) == ({}, {})
    kept_results.write(file, found, {"memory": "much"})
    assert kept_results.read(file) == (found, {"memory": "much"})
