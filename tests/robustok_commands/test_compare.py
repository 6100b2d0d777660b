"""`robustok compare` as a user meets it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustok_core import Result
from robustok_core.cli import main
from robustok_core.runs.results import tables_of

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: Any, monkeypatch: Any, tmp_path: Path) -> Command:
    """Runs `robustok compare` in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["compare", *arguments])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def leave(folder: str, **results: float | Result) -> None:
    """A run's results, with "__" for the slash."""
    Path(folder).mkdir()
    named = {name.replace("__", "/"): Result.of(value) for name, value in results.items()}
    (Path(folder) / "results.json").write_text(json.dumps(tables_of(named)))


def leave_file(name: str, **results: Result) -> None:
    """What `robustok evaluate --out` writes."""
    Path(name).write_text(json.dumps({"samples": "s", "reference": "r", "results": tables_of(results)}))


def low(value: float, num_images: int | None = None, num_reference: int | None = None) -> Result:
    """A result that is the better the lower it is."""
    return Result(value, higher_is_better=False, num_images=num_images, num_reference=num_reference)


def high(value: float, num_images: int | None = None, num_reference: int | None = None) -> Result:
    """A result that is the better the higher it is."""
    return Result(value, higher_is_better=True, num_images=num_images, num_reference=num_reference)


def rows(output: str) -> dict[str, list[str]]:
    """The table's rows: a value and its star are one cell."""
    return {words[0]: words[1:] for line in output.replace(" *", "*").splitlines() if (words := line.split())}


def test_json_is_read_by_every_program_also_with_numbers_that_it_does_not_have(command):
    leave_file("one.json", psnr=Result(math.inf, higher_is_better=True, details={"std": math.nan}))
    leave_file("two.json", psnr=Result(26.0, higher_is_better=True))

    def never(name):
        raise AssertionError(f"{name} is not in JSON")

    told = json.loads(command("--json", "one.json", "two.json")[1], parse_constant=never)
    assert told["psnr"]["one.json"] == {"value": None, "higher_is_better": True, "details": {"std": None}}
    assert told["psnr"]["two.json"]["value"] == 26.0


def test_better_values_have_a_star_in_the_direction_that_the_metric_says(command: Command) -> None:
    for name, values in (("one", (3.25, 200.0, 21.5, 0.7)), ("two", (2.75, 150.0, 21.5, 0.8))):
        gfid, score, psnr, precision = values
        leave(
            name,
            eval__gfid=low(gfid),
            eval__inception_score=high(score),
            eval__psnr=high(psnr),
            eval__precision_dino=high(precision),
        )
    code, output, _ = command("one", "two")
    assert code == 0
    assert rows(output) == {
        "result": ["one", "two"],
        "eval/gfid": ["3.25", "2.75*"],
        "eval/inception_score": ["200*", "150"],
        "eval/psnr": ["21.5", "21.5"],  # neither is better
        "eval/precision_dino": ["0.7", "0.8*"],
    }


def test_numbers_without_a_better_direction_have_no_star(command: Command) -> None:
    leave("one", train__seconds=10.0, eval__changed=50.0, eval__mine=Result(0.1, num_images=5))
    leave("two", train__seconds=12.0, eval__changed=60.0, eval__mine=Result(0.2, num_images=5))
    assert "*" not in command("one", "two")[1]


def test_three_runs_may_differ_in_what_they_measured_and_cells_of_a_mean_are_left_out(command: Command) -> None:
    leave("one", eval__ssim=high(0.5), eval__pfid=Result(3.0, details={"cells": {"alpha1": 4.0}}))
    leave("two", eval__ssim=high(0.75))
    leave("three", eval__gfd_efficientnet_lite0=low(7.0))
    _, output, _ = command("one", "two", "three")
    assert rows(output) == {
        "result": ["one", "two", "three"],
        "eval/ssim": ["0.5", "0.75*", "-"],
        "eval/pfid": ["3", "-", "-"],
        "eval/gfd_efficientnet_lite0": ["-", "-", "7"],
    }


def test_file_of_evaluate_is_compared_too(command: Command) -> None:
    leave_file("one.json", gfid=low(2.0))
    leave_file("two.json", gfid=low(1.0))
    assert rows(command("one.json", "two.json")[1])["gfid"] == ["2", "1*"]


def test_file_of_evaluate_stands_in_the_row_of_the_stage_that_measured_the_same(command: Command) -> None:
    leave("run", train__loss=1.0, eval__gfid=low(3.0, 50))
    leave_file("file.json", gfid=low(2.0, 50), kid=low(0.5))
    for order in (["run", "file.json"], ["file.json", "run"]):
        table = rows(command(*order)[1])
        cells = {"run": "3", "file.json": "2*"}
        assert table["eval/gfid"] == [cells[name] for name in order]
        assert "gfid" not in table
        assert sorted(table["kid"]) == ["-", "0.5"]


def test_distances_of_a_run_and_of_evaluate_from_unequal_numbers_are_refused(command: Command) -> None:
    leave("run", eval__gfid=low(3.0, 50))
    leave_file("file.json", gfid=low(2.0, 60))
    code, _, errors = command("run", "file.json")
    assert code == 2
    assert "eval/gfid was measured with 50 images and with 60" in errors


def test_result_of_evaluate_that_two_stages_measured_keeps_a_row_of_its_own(command: Command) -> None:
    leave("run", eval__gfid=low(3.0), again__gfid=low(4.0))
    leave_file("file.json", gfid=low(2.0))
    table = rows(command("run", "file.json")[1])
    assert (table["eval/gfid"], table["again/gfid"], table["gfid"]) == (["3", "-"], ["4", "-"], ["-", "2"])


def test_better_values_of_each_decoder_of_post_training_have_a_star(command: Command) -> None:
    names = ("before_gfd_dino", "before_rfd_dino", "sigma0.7_guided_gfd_dino", "sigma1_precision_dino", "kept_sigma")
    for folder, value in (("one", 1.0), ("two", 2.0)):
        measured = {name: high(value) if "precision" in name else low(value) for name in names[:4]}
        leave(folder, **{f"post__{name}": measured.get(name, value) for name in names})
    table = rows(command("one", "two")[1])
    for name in names[:3]:
        assert table[f"post/{name}"] == ["1*", "2"], name
    assert table["post/sigma1_precision_dino"] == ["1", "2*"]
    assert table["post/kept_sigma"] == ["1", "2"]


def test_distances_of_unequal_numbers_are_refused_with_both_numbers(command: Command) -> None:
    leave("one", eval__gfid=low(3.0, 50000))
    leave("two", eval__gfid=low(4.0, 10000))
    code, output, errors = command("one", "two")
    assert code == 2
    assert output == ""
    assert "eval/gfid was measured with 50,000 images and with 10,000" in errors
    assert "--skip-unequal" in errors


def test_unequal_rows_are_left_out_on_request_and_named(command: Command) -> None:
    leave("one", eval__gfid=low(3.0, 50000), eval__psnr=high(20.0))
    leave("two", eval__gfid=low(4.0, 10000), eval__psnr=high(21.0))
    code, output, _ = command("one", "two", "--skip-unequal")
    assert code == 0
    table = output.partition("left out")[0]
    assert set(rows(table)) == {"result", "eval/psnr"}
    assert "left out, measured with unequal numbers of images: eval/gfid\n" in output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("good",), "there is nothing to compare"),
        (("good", "nothing"), "nothing: there is no such run or file"),
        (("good", "empty"), "empty: there are no results"),
        (("good", "list.json"), "list.json: this file does not hold results by name"),
        (("good", "text.json"), "text.json: this is not a JSON file"),
    ],
)
def test_each_mistake_gives_one_message(command: Command, arguments: tuple[str, ...], reason: str) -> None:
    leave("good", eval__gfid=3.0)
    Path("empty").mkdir()
    Path("list.json").write_text("[1, 2]")
    Path("text.json").write_text("good")
    code, _, errors = command(*arguments)
    assert code == 2
    assert reason in errors
    assert errors.count("error: ") == 1


def test_unequal_numbers_of_real_images_are_refused_too(command: Command) -> None:
    leave("one", eval__precision_dino=high(0.7, 50, 100))
    leave("two", eval__precision_dino=high(0.8, 50, 200))
    code, _, output = command("one", "two")
    assert code == 2
    assert "eval/precision_dino was measured with 100 real images and with 200" in output
    assert "eval/precision_dino " not in command("one", "two", "--skip-unequal")[1]


def test_json_holds_all_details_of_each_result_of_each_run(command: Command) -> None:
    cells = Result(3.5, higher_is_better=False, num_images=50, details={"cells": {"alpha1": 4.0}})
    leave("one", eval__pfid=cells, eval__psnr=high(20.0))
    leave("two", eval__pfid=low(3.0, 50), train__steps=7.0)
    code, output, _ = command("one", "two", "--json")
    assert code == 0
    assert json.loads(output) == {
        "eval/pfid": {"one": cells.table(), "two": {"value": 3.0, "higher_is_better": False, "num_images": 50}},
        "eval/psnr": {"one": {"value": 20.0, "higher_is_better": True}},
        "train/steps": {"two": {"value": 7.0}},
    }


def test_json_refuses_and_leaves_out_unequal_rows_as_the_table_does(command: Command) -> None:
    leave("one", eval__gfid=low(3.0, 50), eval__psnr=high(20.0))
    leave("two", eval__gfid=low(4.0, 60), eval__psnr=high(21.0))
    assert command("one", "two", "--json")[0] == 2
    code, output, errors = command("one", "two", "--json", "--skip-unequal")
    assert code == 0
    assert list(json.loads(output)) == ["eval/psnr"]
    assert "left out, measured with unequal numbers of images: eval/gfid\n" in errors


def test_a_run_of_an_earlier_version_stands_beside_one_of_this(command: Command) -> None:
    """Its file does not say what is better, but the other one's does."""
    Path("old").mkdir()
    numbers = {"eval/pfid": 2.0, "eval/pfid_num_images": 50.0, "eval/pfid/alpha1": 4.0, "eval/kid_std": 0.5}
    Path("old/results.json").write_text(json.dumps(numbers))
    leave("new", eval__pfid=low(3.0, 50))
    assert rows(command("old", "new")[1])["eval/pfid"] == ["2*", "3"]
    leave("more", eval__pfid=low(3.0, 60))
    code, _, errors = command("old", "more")
    assert code == 2
    assert "eval/pfid was measured with 50 images and with 60" in errors


def test_runs_that_disagree_on_what_is_better_have_no_star(command: Command) -> None:
    leave("one", eval__mine=low(3.0))
    leave("two", eval__mine=high(4.0))
    assert "*" not in command("one", "two")[1]


def recipe(folder: str, data: str = 'use = "fashion_mnist"', *, stage: str = "", size: int = 32) -> None:
    """The resolved recipe of a run whose stage is called "eval"."""
    text = f'[run]\nname = "r"\n[data]\n{data}\nimage_size = {size}\n[[stage]]\nname = "eval"\nuse = "x"\n{stage}\n'
    (Path(folder) / "recipe.toml").write_text(text)


def splits(folder: str, train: str, validation: str) -> None:
    (Path(folder) / "run.json").write_text(json.dumps({"data": {"train": train, "validation": validation}}))


GFID = 'metrics = { gfid = { use = "frechet", features = { use = "inception" } } }'


@pytest.mark.parametrize(
    ("one", "two", "what"),
    [
        ({"data": 'use = "npz"\npath = "cats"'}, {"data": 'use = "npz"\npath = "clothes"'}, "data.path"),
        ({"data": "validation_share = 0.1"}, {"data": "validation_share = 0.2"}, "data.validation_share"),
        ({"size": 32}, {"size": 64}, "picture size (one: 32 x 32, two: 64 x 64)"),
        ({"stage": GFID}, {"stage": GFID.replace("inception", "dino")}, "features"),
        ({"stage": 'reference = "train"'}, {"stage": 'reference = "validation"'}, "reference"),
        ({"stage": "limit = 10"}, {"stage": "limit = 20"}, "limit"),
    ],
)
def test_what_was_measured_differently_has_a_note_and_no_star(command: Command, one: Any, two: Any, what: str) -> None:
    for name, value, changes in (("one", 3.0, one), ("two", 2.0, two)):
        leave(name, eval__gfid=low(value, 50))
        recipe(name, **changes)
    code, output, _ = command("one", "two")
    assert code == 0
    table, _, note = output.partition("note: ")
    assert rows(table)["eval/gfid"] == ["3", "2"]
    assert note.startswith(f"eval/gfid: different {what}")
    assert "note: eval/gfid" in command("one", "two", "--json")[2]
    recipe("two", **one)
    assert rows(command("one", "two")[1])["eval/gfid"] == ["3", "2*"]


def test_the_same_images_in_another_place_are_the_same_data(command: Command) -> None:
    for name, value in (("one", 3.0), ("two", 2.0)):
        leave(name, eval__gfid=low(value, 50))
        recipe(name, f'use = "npz"\npath = "{name}"')
        splits(name, "t", "v")
    code, output, _ = command("one", "two")
    assert code == 0
    assert rows(output)["eval/gfid"] == ["3", "2*"]
    assert "note" not in output
    splits("two", "t", "other")
    output = command("one", "two")[1]
    assert "eval/gfid: different validation images (one: v, two: other)" in output
    assert "*" not in output


def test_other_training_images_have_a_note_but_may_be_compared(command: Command) -> None:
    for name, value, train in (("one", 3.0, "all"), ("two", 2.0, "half")):
        leave(name, eval__gfid=low(value, 50))
        recipe(name)
        splits(name, train, "v")
    output = command("one", "two")[1]
    assert rows(output)["eval/gfid"] == ["3", "2*"]
    assert "eval/gfid: different training images (one: all, two: half)" in output


def test_files_of_evaluate_that_name_other_references_have_no_star(command: Command) -> None:
    leave_file("one.json", gfid=low(2.0, 50))
    Path("two.json").write_text(Path("one.json").read_text().replace('"r"', '"other"').replace("2.0", "1.0"))
    output = command("one.json", "two.json")[1]
    assert "*" not in output
    assert "note: gfid: different reference (one.json: r, two.json: other)" in output


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        '{"a": "x"}',
        '{"a": {"value": 1e999}}',
        '{"a": {"value": "1"}}',
        "\ufeff{}",
        '{"a": {"value": 1, "num_images": "many"}}',
        '{"results": 5}',
        '{"a": null}',
        '{"a": {"value": 1, "details": 3}}',
        '{"a": {"value": ' + "9" * 401 + "}}",
        '{"a": ' + "9" * 401 + "}",
        '{"a": ' + "9" * 5000 + "}",
    ],
)
def test_a_file_of_another_shape_is_one_message_or_shown(command: Command, text: str) -> None:
    leave("good", eval__gfid=low(3.0))
    Path("bad.json").write_text(text)
    code, _, errors = command("good", "bad.json")
    assert code in (0, 2)
    assert errors.count("error: ") == (1 if code else 0)


def test_files_that_say_of_how_they_were_measured_only_a_part_are_shown(command: Command) -> None:
    for name, value in (("one", 2.0), ("two", 1.0)):
        leave_file(f"{name}.json", gfid=low(value, 50))
        content = json.loads(Path(f"{name}.json").read_text())
        del content["reference"]
        content |= {"reference_content": "same", "network": {"use": "inception"}, "metrics": {"gfid": 3}}
        Path(f"{name}.json").write_text(json.dumps(content))
    code, output, errors = command("one.json", "two.json")
    assert (code, errors) == (0, "")
    assert rows(output)["gfid"] == ["2", "1*"]


def test_a_damaged_recipe_or_record_beside_the_results_does_not_hide_them(command: Command) -> None:
    for name, damage in (("one", "\0"), ("two", "[")):
        leave(name, eval__gfid=low(3.0))
        recipe(name)
        (Path(name) / "run.json").write_text(damage)
    (Path("two") / "recipe.toml").write_text("[")
    assert rows(command("one", "two")[1])["eval/gfid"] == ["3", "3"]


def test_settings_that_differ_are_listed_and_no_name_breaks_at_80_columns(command: Command, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    recipe = """
        [run]
        name = "{0}"
        [perturbation]
        use = "top_delta"
        beta = {1}
        [generator]
        use = "{2}"
        {3} = 1
        [[stage]]
        use = "train_tokenizer"
        epochs = 5
    """
    runs = ("baseline_with_a_long_name_of_its_own", "robust_with_a_long_name_of_its_own")
    for run, values in zip(runs, ((0.1, "rar", "a"), (0.5, "maskgit", "b")), strict=True):
        leave(run, evaluate_generator__precision_fashion_classifier=high(values[0]))
        Path(run, "recipe.toml").write_text(recipe.format(run, *values))
    code, output, _ = command(*runs)
    assert code == 0
    assert rows(output)["evaluate_generator/precision_fashion_classifier"] == ["0.1", "0.5*"]
    assert rows(output)["perturbation.beta"] == ["0.1", "0.5"]
    assert rows(output)["generator.use"] == ["rar", "maskgit"]
    for absent in ("generator.a", "run.name", "epochs"):
        assert absent not in output
    assert rows(output)["(1)"] == [runs[0]]
    assert rows(output)["(2)"] == [runs[1]]
    assert max(map(len, output.splitlines())) <= 80
