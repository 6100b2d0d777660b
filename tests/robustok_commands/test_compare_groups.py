"""`robustok compare --group`: means over seeds, and differences paired by seed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import tomli_w
from scipy import stats

from robustok_core import Result
from robustok_core.runs.results import tables_of
from robustok_core.runs.run_record import write_run

ONE, TWO = [330.0, 340.0, 326.0], [300.0, 312.0, 295.0]


def leave(name: str, seed: int, recipe: dict | None = None, **results: Result) -> None:
    """A run's folder with these results, "__" for the slash."""
    folder = Path(name)
    folder.mkdir()
    write_run(folder, {"stages": {}, "current": {}, "seed": seed})
    table = {"run": {"name": folder.name, "seed": seed}, "perturbation": {"use": "none"}, **(recipe or {})}
    (folder / "recipe.toml").write_text(tomli_w.dumps(table))
    named = {key.replace("__", "/"): result for key, result in results.items()}
    (folder / "results.json").write_text(json.dumps(tables_of(named)))


def groups() -> None:
    for seed, (one, two) in enumerate(zip(ONE, TWO, strict=True)):
        leave(f"one-seed{seed}", seed, eval__fd=fd(one), eval__psnr=Result(26.0 + one / 1e4, higher_is_better=True))
        other = {"perturbation": {"use": "top_delta"}}
        leave(
            f"two-seed{seed}", seed, other, eval__fd=fd(two), eval__psnr=Result(26.1 - two % 7, higher_is_better=True)
        )


def fd(value: float, num_images: int = 1000) -> Result:
    return Result(value, higher_is_better=False, num_images=num_images)


RUNS = [f"{group}-seed{seed}" for group in ("one", "two") for seed in range(3)]


@pytest.fixture
def compare(command):
    return lambda *arguments: command("compare", "--group", *arguments)


def test_means_errors_and_paired_differences_are_those_of_scipy(compare):
    groups()
    code, output, _ = compare(*reversed(RUNS), "--json")
    assert code == 0
    found = json.loads(output)
    assert found["groups"]["two"] == {str(seed): f"two-seed{seed}" for seed in range(3)}
    row = found["results"]["eval/fd"]
    assert row["groups"]["one"]["mean"] == pytest.approx(sum(ONE) / 3)
    assert row["groups"]["one"]["standard_error"] == pytest.approx(stats.sem(ONE))
    difference = row["differences"]["one"]  # the first group is the one that is named first
    paired = stats.ttest_rel(ONE, TWO).confidence_interval(0.95)
    assert (difference["low"], difference["high"]) == (pytest.approx(paired.low), pytest.approx(paired.high))
    assert difference["by_seed"] == {str(seed): ONE[seed] - TWO[seed] for seed in range(3)}


def test_a_star_marks_only_what_is_better_beyond_its_error(compare):
    groups()
    code, output, _ = compare(*RUNS)
    assert code == 0
    lines = {line.split()[0]: line for line in output.splitlines() if line.split()}
    assert "302.3 ± 5 *" in lines["eval/fd"]
    assert "-29.7 ± 0.88" in lines["eval/fd"]
    assert "*" not in lines["eval/psnr"]
    assert "one -> two: perturbation.use: none -> top_delta" in output


def test_csv_has_a_line_for_each_result_and_group(compare):
    groups()
    code, output, _ = compare(*RUNS, "--csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(output)))
    assert [(row["result"], row["group"]) for row in rows][:2] == [("eval/fd", "one"), ("eval/fd", "two")]
    assert [float(rows[1][f"seed{seed}"]) for seed in range(3)] == TWO
    assert (rows[1]["best"], rows[0]["difference"]) == ("1", "")


def test_groups_of_unequal_seeds_and_numbers_of_images_are_refused(refused):
    groups()
    message = refused("compare", "--group", *RUNS[:5])
    assert "one has the seeds 0, 1, 2, and two 0, 1: differences are paired by seed" in message
    leave("three-seed0", 0, eval__fd=fd(3.0, 50))
    message = refused("compare", "--group", "one-seed0", "three-seed0")
    assert "eval/fd was measured with different numbers of images (one-seed0: 1,000, three-seed0: 50)" in message


def test_runs_that_differ_in_more_than_their_seed_are_no_group(refused):
    groups()
    leave("one-seed3", 3, {"perturbation": {"use": "gaussian"}}, eval__fd=fd(1.0))
    message = refused("compare", "--group", *RUNS[:3], "one-seed3")
    assert "one-seed3: differs from one-seed0 in more than its seed: perturbation.use: none -> gaussian" in message
    leave("one_seed0", 0, eval__fd=fd(1.0))
    assert "this has the seed 0, as one-seed0 has" in refused("compare", "--group", "one-seed0", "one_seed0")


def test_csv_without_groups_and_files_are_refused(refused):
    Path("file.json").write_text("{}")
    assert "--csv prints groups" in refused("compare", "a", "b", "--csv")
    assert "this is not the folder of a run" in refused("compare", "--group", "file.json", "file.json")
