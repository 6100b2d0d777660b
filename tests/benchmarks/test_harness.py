"""What the benchmarks share: fair turns, paired ratios, and a report with the machine and the options."""

from __future__ import annotations

import json
import time

import pytest


@pytest.fixture
def harness(script):
    return script("harness")


def test_ways_take_turns_and_rounds_before_the_first_do_not_count(harness):
    order = []
    ways = {name: lambda name=name: order.append(name) or len(order) for name in ("plain", "ours")}
    found = harness.compare(ways, rounds=3, warm_up=2)
    assert order == ["plain", "ours"] * 5
    assert {name: len(values) for name, values in found.seconds.items()} == {"plain": 3, "ours": 3}
    assert found.results == {"plain": 9, "ours": 10}


def test_time_that_a_way_sleeps_is_not_the_processors(harness):
    found = harness.compare({"sleeps": lambda: time.sleep(0.02)}, rounds=1, warm_up=0)
    assert found.seconds["sleeps"][0] >= 0.02
    assert found.processor_seconds["sleeps"][0] < found.seconds["sleeps"][0]


def test_a_ratio_is_of_the_times_of_the_same_round(harness):
    """In the second round both took ten times as long, because of other load."""
    found = comparison(harness, {"plain": [2.0, 20.0, 4.0], "ours": [1.0, 10.0, 1.0]})
    faster = found.times_as_fast()
    assert (faster["plain"].median, faster["plain"].low, faster["plain"].high) == (1.0, 1.0, 1.0)
    assert (faster["ours"].median, faster["ours"].low, faster["ours"].high) == (2.0, 2.0, 3.0)
    assert found.rates(8)["ours"].median == 8.0
    assert found.times_as_fast("processor_seconds")["ours"].median == 1.0


def comparison(harness, seconds, peaks=None):
    same = {name: [1.0] * len(values) for name, values in seconds.items()}
    return harness.Comparison(seconds=seconds, processor_seconds=same, peak_bytes=peaks or {}, results={})


def test_a_spread_is_the_median_and_the_quartiles(harness):
    spread = harness.Spread.of([4.0, 1.0, 3.0, 2.0, 5.0])
    assert (spread.low, spread.median, spread.high) == (2.0, 3.0, 4.0)
    assert spread.text() == "3.00 (2.00 to 4.00)"
    assert spread.text(100.0) == "300 (200 to 400)"
    assert harness.Spread.of([0.25]).text() == "0.250"


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.1234, "0.123"), (0.00123, "0.001230")],
)
def test_numbers_have_about_three_digits(harness, value, text):
    assert harness.number(value) == text


def test_a_report_holds_a_table_and_everything_measured(harness, tmp_path, capsys):
    parser = harness.Parser("what it measures", {"batch": 8}, quick={"batch": 2})
    files = ["--json", str(tmp_path / "found.json"), "--markdown", str(tmp_path / "table.md")]
    report = harness.Report(parser.options(["--quick", "--threads", "1", *files]))
    found = comparison(harness, {"plain": [2.0, 4.0], "ours": [1.0, 2.0]}, {"plain": 2**31, "ours": 2**30})
    report.compared("sampling", found, amount=4, unit="images", columns=lambda name: {"MFU": f"of {name}"})
    report.found["share_of_equal_codes"] = 1.0
    content = report.finish()
    table = (tmp_path / "table.md").read_text()
    assert table.splitlines() == [
        "| what | way | images/s | times as fast | peak GiB | MFU |",
        "| --- | --- | --- | --- | --- | --- |",
        "| sampling | plain | 1.50 (1.25 to 1.75) | 1.00 | 2.00 | of plain |",
        "| sampling | ours | 3.00 (2.50 to 3.50) | 2.00 | 1.00 | of ours |",
    ]
    assert table in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text()) == content
    assert content["sampling"]["ours"] == {
        "seconds": [1.0, 2.0],
        "processor_seconds": [1.0, 1.0],
        "median_ms": 1500.0,
        "times_as_fast": 2.0,
        "images_per_second": 3.0,
        "peak_bytes": 2**30,
        "MFU": "of ours",
    }
    assert content["options"] == {"batch": 2, "rounds": 1, "threads": 1, "device": "cpu", "quick": True}
    assert {"device", "cores", "torch", "python"} <= content["machine"].keys()


def test_quick_replaces_defaults_but_not_what_is_given(harness):
    options = harness.Parser("", {"batch": 8, "steps": 50}, quick={"batch": 2, "steps": 1})
    chosen = options.options(["--quick", "--steps", "7"])
    assert (chosen.batch, chosen.steps, chosen.rounds) == (2, 7, 1)
    assert harness.Parser("", {"batch": 8}, quick={"batch": 2}).options([]).batch == 8
