"""Results in files, including those of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from project import Project, registry_with
from robustok_core import Result, RobustokError, hookimpl
from robustok_core.runs.files import read_json, write_json
from robustok_core.runs.results import RESULTS_FILE, read_results, results_of, tables_of

#: results.json of a run of `main_train` and `post_train` when it held bare numbers.
EARLIER = Path(__file__).with_name("results_of_an_earlier_version.json")
EVALUATION = {"use": "evaluate_tokenizer", "pictures": 0, "metrics": {"psnr": {"use": "psnr"}}}


def flat(results: dict[str, Result]) -> dict[str, float]:
    """Results as earlier versions wrote them."""
    found = {}
    for name, result in results.items():
        beside = {"_num_images": result.num_images, "_num_reference_images": result.num_reference}
        beside |= {f"_{key}": value for key, value in result.details.items() if key != "cells"}
        beside |= {f"/{cell}": value for cell, value in result.details.get("cells", {}).items()}
        found |= {name: result.value}
        found |= {f"{name}{ending}": value for ending, value in beside.items() if value is not None}
    return found


def test_written_results_are_read_back() -> None:
    results = {
        "a/count": Result(3),
        "a/distance": Result(0.1 + 0.2, higher_is_better=False, num_images=50, num_reference=0),
        "b/score": Result(2.5, higher_is_better=True, details={"std": 0.25, "cells": {"x": 1.0, "y": 2.0}}),
    }
    assert results_of(json.loads(json.dumps(tables_of(results)))) == results


def test_unknown_attributes_are_not_written() -> None:
    assert tables_of({"a/count": Result(3)}) == {"a/count": {"value": 3.0}}


@pytest.mark.parametrize("wrong", [{"num_images": -1}, {"num_images": 2.5}, {"higher_is_better": 1}], ids=str)
def test_a_result_with_an_invalid_count_or_direction_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Result(1.0, **wrong)


def test_details_that_json_cannot_hold_are_refused_at_construction() -> None:
    with pytest.raises(TypeError, match="JSON"):
        Result(1.0, details={"images": {1, 2}})


def test_no_number_of_a_file_of_an_earlier_version_is_lost() -> None:
    assert flat(read_results(EARLIER)) == read_json(EARLIER)


def test_numbers_beside_a_result_of_an_earlier_version_become_its_attributes() -> None:
    numbers, results = read_json(EARLIER), read_results(EARLIER)
    name = "evaluate_tokenizer/pfd_efficientnet_lite0"
    pfd = results[name]
    assert pfd.value == numbers[name]
    assert pfd.num_images == 100
    assert (pfd.details["num_cells"], pfd.details["deltas_scaled_from"]) == (15, 1024)
    assert len(pfd.details["cells"]) == 15
    assert pfd.details["cells"]["alpha0.5_delta8"] == numbers[f"{name}/alpha0.5_delta8"]
    recall = results["evaluate_generator/recall_efficientnet_lite0"]
    assert (recall.num_images, recall.num_reference) == (200, 2000)
    assert results["evaluate_generator/kd_efficientnet_lite0"].details == {"std": 0.5321557721022225}
    assert results["post_train/before_guided_gfd_efficientnet_lite0"].num_images == 100
    assert results["sample/num_samples"] == Result(200)
    beside = [name for name in results if name.endswith(("_num_images", "_std", "_cells", "_from")) or "/alpha" in name]
    assert beside == []


def test_a_suffixed_name_without_its_result_is_a_result() -> None:
    assert results_of({"gfid_num_images": 50, "kid": 0.5, "kid_std": 0.1}) == {
        "gfid_num_images": Result(50),
        "kid": Result(0.5, details={"std": 0.1}),
    }


@pytest.mark.parametrize("content", [[1, 2], {"a": "b"}, {"a": {"number": 3}}, {"a": None}, {"results": [1]}], ids=str)
def test_a_file_without_results_is_refused(content: Any, tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", content)
    with pytest.raises(RobustokError, match="this file does not hold results by name"):
        read_results(tmp_path / "file.json")


def test_run_returns_the_results_of_its_file_and_passes_them_to_plugins(tmp_path: Path) -> None:
    project = Project(tmp_path, ["train_tokenizer", EVALUATION])
    told: dict[str, Any] = {}

    class Listener:
        @hookimpl
        def robustok_stage_finished(self, stage: str, results: dict[str, Result]) -> None:
            told.update({f"{stage}/{name}": result for name, result in results.items()})

        @hookimpl
        def robustok_run_finished(self, results: dict[str, Result]) -> None:
            told["run"] = dict(results)

    results = project.run(registry=registry_with(Listener())).results
    assert results["train_tokenizer/steps"] == Result(results["train_tokenizer/steps"].value), "a bare number"
    assert results["evaluate_tokenizer/psnr"].higher_is_better is True
    assert read_results(project.folder) == told.pop("run") == told == results


def test_a_finished_stage_of_an_earlier_version_is_skipped(tmp_path: Path) -> None:
    project = Project(tmp_path, ["train_tokenizer", EVALUATION])
    results = project.run().results
    file = project.folder / "run.json"
    record = {name: value for name, value in read_json(file).items() if name != "checksum"}
    for entry in record["stages"].values():
        entry["results"] = flat(results_of(entry["results"])) | {"distance": 2.0, "distance_num_images": 40.0}
    write_json(file, record)
    of_stages = {stage.rpartition("-")[0]: entry["results"] for stage, entry in record["stages"].items()}
    earlier = {f"{stage}/{name}": value for stage, values in of_stages.items() for name, value in values.items()}
    write_json(project.folder / RESULTS_FILE, earlier)
    again = project.run().results
    assert {name: again[name].value for name in results} == {name: result.value for name, result in results.items()}
    assert again["evaluate_tokenizer/distance"] == Result(2.0, num_images=40)
    assert read_json(file)["stages"].keys() == record["stages"].keys()
    assert read_results(project.folder) == again
    assert (tmp_path / "tiny" / "history" / RESULTS_FILE.replace(".json", "-1.json")).is_file()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "expected an object"),
        ("3", "expected an object"),
        ('{"fid": null}', "fid: expected an object, found NoneType None"),
        ('{"fid": true}', "fid: expected float, found bool True"),
        ('{"fid": {"value": "3"}}', "fid.value: expected float, found str '3'"),
        ('{"fid": {}}', "fid.value: the key is missing"),
        ('{"fid": 1%s}' % ("0" * 400), "fid: expected float, found a number that is too large"),
        ('{"fid": {"value": 1%s}}' % ("0" * 400), "fid.value: expected float, found a number that is too large"),
        ('{"fid": {"value": 1, "num_images": -1}}', "fid: 'num_images' must be >= 0"),
        ('{"fid": {"value": 1, "details": []}}', "fid.details: expected an object"),
        ('{"results": {"fid": "low"}}', "fid: expected an object, found str 'low'"),
    ],
)
def test_a_file_of_another_shape_is_refused_by_its_key(content, words, tmp_path):
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(RobustokError, match=f"this file does not hold results by name: {words}") as caught:
        read_results(file)
    assert caught.value.where == str(file)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"9" * 5000])
def test_a_file_that_is_no_json_is_refused(content, tmp_path):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(RobustokError, match="this is not a JSON file"):
        read_results(tmp_path)
