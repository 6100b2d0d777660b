"""`robustok compare --group`: means over seeds, and differences paired by seed."""

from __future__ import annotations

import copy
import csv
import io
import json
from pathlib import Path

import pytest
from scipy import stats

from left_runs import MEASURED, distance, leave_run
from robustok_core import Result

ONE, TWO = [330.0, 340.0, 326.0], [300.0, 312.0, 295.0]


def leave(name: str, seed: int, recipe: dict | None = None, **results: Result) -> None:
    """A run's folder with these results, "__" for the slash."""
    named = {key.replace("__", "/"): result for key, result in results.items()}
    leave_run(name, named, seed=seed, recipe={"perturbation": {"use": "none"}, **(recipe or {})})


def groups() -> None:
    for seed, (one, two) in enumerate(zip(ONE, TWO, strict=True)):
        leave(f"one-seed{seed}", seed, eval__fd=fd(one), eval__psnr=Result(26.0 + one / 1e4, higher_is_better=True))
        other = {"perturbation": {"use": "top_delta"}}
        leave(
            f"two-seed{seed}", seed, other, eval__fd=fd(two), eval__psnr=Result(26.1 - two % 7, higher_is_better=True)
        )


def fd(value: float, num_images: int = 1000) -> Result:
    return distance(value, num_images)


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


def test_runs_that_were_started_afresh_are_a_group(compare):
    """`--fresh` puts a number behind the seed."""
    groups()
    for seed in range(3):
        leave(f"one-seed{seed}-2", seed, eval__fd=fd(300.0 + seed))
    code, output, _ = compare(*(f"one-seed{seed}-2" for seed in range(3)), *RUNS[3:])
    assert code == 0
    assert "one-2" in output


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


def test_the_folder_of_a_study_is_told_from_a_run(refused):
    Path("s").mkdir()
    Path("s/study.json").write_text("{}")
    message = refused("compare", "--group", "s", "s")
    assert "s: this is the folder of a study" in message
    assert "name its runs, s/ARM-seed0" in message


def test_csv_without_groups_and_files_are_refused(refused):
    Path("file.json").write_text("{}")
    assert "--csv prints groups" in refused("compare", "a", "b", "--csv")
    assert "this is not the folder of a run" in refused("compare", "--group", "file.json", "file.json")


def changed(place: tuple, value: object) -> dict:
    """The recipe of the other group."""
    recipe = copy.deepcopy(MEASURED)
    table = recipe
    for key in place[:-1]:
        table = table[key]
    table[place[-1]] = value
    return recipe


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        (("data", "path"), "elsewhere", None),
        (("data", "use"), "fluent_emoji", "data.use"),
        (("data", "image_size"), 64, "picture size"),
        (("stage", 1, "metrics", "gfd", "features", "use"), "dinov2", "features"),
        (("stage", 1, "reference"), "train", "reference"),
        (("stage", 1, "limit"), 500, "limit"),
        (("stage", 0, "classes"), [1], "classes of samples"),
        (("stage", 0, "guidance", "scale"), 2.0, None),  # this may be what is compared
        (("perturbation", "use"), "top_delta", None),
    ],
)
def test_groups_that_were_measured_otherwise_have_no_star_no_difference_and_a_note(compare, place, value, what):
    other = changed(place, value)
    first = changed(place, "here") if place == ("data", "path") else MEASURED
    data = {"data": {"train": "t", "validation": "v"}} if place == ("data", "path") else {}
    for seed, (one, two) in enumerate(zip(ONE, TWO, strict=True)):
        leave_run(f"one-seed{seed}", {"eval/fd": fd(one)}, seed=seed, recipe=first, record=data)
        leave_run(f"two-seed{seed}", {"eval/fd": fd(two)}, seed=seed, recipe=other, record=data)
    code, output, _ = compare(*RUNS)
    row = next(line for line in output.splitlines() if line.split()[:1] == ["eval/fd"])
    assert code == 0
    assert ("*" in row, "-29.7" in row) == ((True, True) if what is None else (False, False))
    assert ("note: " in output) == (what is not None)
    if what is not None:
        assert f"note: eval/fd cannot be compared: different {what} (one-seed0: " in output
    found = json.loads(compare(*RUNS, "--json")[1])["results"]["eval/fd"]
    assert (found["best"], bool(found["differences"]), found["why_not"] is None) == (
        ("two", True, True) if what is None else (None, False, False)
    )
    rows = list(csv.DictReader(io.StringIO(compare(*RUNS, "--csv")[1])))
    assert [row["best"] for row in rows] == (["0", "1"] if what is None else ["0", "0"])
    assert all((row["why_not"] == "") == (what is None) for row in rows)


def test_one_run_of_a_group_that_was_measured_otherwise_is_enough(compare):
    for seed, (one, two) in enumerate(zip(ONE, TWO, strict=True)):
        data = {"data": {"train": "t", "validation": "other" if seed == 1 else "v"}}
        leave_run(f"one-seed{seed}", {"eval/fd": fd(one)}, seed=seed)
        leave_run(f"two-seed{seed}", {"eval/fd": fd(two)}, seed=seed, record=data)
    output = compare(*RUNS)[1]
    assert "*" not in output
    assert "different validation images (two-seed0: v, two-seed1: other)" in output


def test_what_only_some_runs_of_a_group_have_is_left_out_and_named(compare):
    for seed in range(3):
        some = {"eval/psnr": Result(26.0, higher_is_better=True)} if seed != 1 else {}
        leave_run(f"one-seed{seed}", {"eval/fd": fd(ONE[seed]), **some}, seed=seed)
        leave_run(f"two-seed{seed}", {"eval/fd": fd(float("nan") if seed == 2 else 3.0)}, seed=seed)
    output = compare(*RUNS)[1]
    assert "note: eval/psnr of one is left out: one-seed1 did not measure it" in output
    assert "note: eval/fd of two is left out: it is not finite in two-seed2" in output


def test_runs_that_load_from_runs_of_their_own_seeds_are_a_group_and_those_of_another_arm_are_not(compare, refused):
    for seed in range(2):
        load = {"load": {"tokenizer": {"path": f"runs/t-seed{seed}"}}}
        leave(f"one-seed{seed}", seed, load, eval__fd=fd(ONE[seed]))
        leave(f"two-seed{seed}", seed, load, eval__fd=fd(TWO[seed]))
    assert compare(*(f"{group}-seed{seed}" for group in ("one", "two") for seed in range(2)))[0] == 0
    leave("one-seed2", 2, {"load": {"tokenizer": {"path": "runs/other-seed2"}}}, eval__fd=fd(3.0))
    message = refused("compare", "--group", "one-seed0", "one-seed2")
    assert (
        "one-seed2: differs from one-seed0 in more than its seed: load.tokenizer.path: runs/t -> runs/other" in message
    )
