"""What the results of a run depend on besides what is compared: the data, the pictures' size, the feature networks.

Read from a run's folder (its recipe, and the data's fingerprints in run.json) or from a file of `robustok evaluate`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from robustok_core.errors import RobustokError, RunError
from robustok_core.recipe.source import read_source, stage_name
from robustok_core.runs.files import read_json
from robustok_core.runs.history import RECIPE_FILE
from robustok_core.runs.run_record import RUN_FILE
from robustok_core.values.result import Result
from robustok_core.values.wording import short_text

#: Training on other images does not make the results of two runs incomparable: it may be what is compared.
TRAINING_IMAGES = "training images"
VALIDATION_IMAGES = "validation images"


@frozen
class Conditions:
    """What is known of one run; what is not known is left out.

    Attributes:
        common: values by what they are ("picture size"), for all results.
        stages: the same, of each stage by name, for the results that depend on the number of images.
    """

    common: Mapping[str, str] = field(factory=dict)
    stages: Mapping[str, Mapping[str, str]] = field(factory=dict)

    def of(self, name: str, result: Result) -> dict[str, str]:
        """What a result depends on; `name` is "stage/metric"."""
        stage = self.stages.get(name.rpartition("/")[0] or "", self.stages.get("", {}))
        measured = {key: value for key, value in stage.items() if result.num_images is not None or key == "limit"}
        return {**self.common, **measured}


def read_conditions(path: Path) -> Conditions:
    """The conditions of a run's results, or of a file with results; empty where nothing is recorded."""
    try:
        return _of_run(path) if path.is_dir() else _of_file(path)
    except RobustokError:  # the results can be shown without it
        return Conditions()


def differences(conditions: Sequence[Conditions], name: str, row: Sequence[Result | None]) -> dict[str, list[str]]:
    """What differs between the results of a row: by what it is, the value of each run, "-" where it is not known."""
    pairs = [(run, result) for run, result in zip(conditions, row, strict=True)]
    known = [{} if result is None else run.of(name, result) for run, result in pairs]
    compared = [values for values, result in zip(known, row, strict=True) if result is not None]
    keys = list(dict.fromkeys(key for values in compared for key in values))
    if all(VALIDATION_IMAGES in values for values in compared):  # then it does not matter where the images are
        keys = [key for key in keys if not key.startswith("data.")]
    return {
        key: [values.get(key, "-") for values in known]
        for key in keys
        if len({values[key] for values in compared if key in values}) > 1
    }


def _of_run(folder: Path) -> Conditions:
    if not (folder / RECIPE_FILE).is_file():
        return Conditions()
    table = read_source(folder / RECIPE_FILE).table
    data, tokenizer = (part if isinstance(part := table.get(key), dict) else {} for key in ("data", "tokenizer"))
    common = {f"data.{key}": _text(value) for key, value in data.items() if key != "image_size"}
    if data:
        common |= _splits(folder)
    if size := data.get("image_size", tokenizer.get("image_size")):
        common["picture size"] = f"{_text(size)} x {_text(size)}"
    stages = table.get("stage")
    named = {stage_name(stage): dict(_measured_with(stage)) for stage in (stages if isinstance(stages, list) else [])}
    return Conditions(common, named)


def _splits(folder: Path) -> dict[str, str]:
    """The fingerprints of the splits, if the run recorded them."""
    try:
        recorded = read_json(folder / RUN_FILE)["data"]
        return {VALIDATION_IMAGES: str(recorded["validation"]), TRAINING_IMAGES: str(recorded["train"])}
    except (RunError, KeyError, TypeError):
        return {}


def _measured_with(stage: Any) -> Iterator[tuple[str, str]]:
    """The feature networks, the reference and the number of images of a stage that measures."""
    if not isinstance(stage, dict):
        return
    for key in ("reference", "limit"):
        if key in stage:
            yield key, str(stage[key])
    groups = {key: value for key, value in stage.items() if isinstance(value, dict)}
    networks = {
        f"{key}.{name}": _text(metric["features"])
        for key, group in groups.items()
        for name, metric in group.items()
        if isinstance(metric, dict) and "features" in metric
    }
    if networks:
        same = len(set(networks.values())) == 1
        yield "features", next(iter(networks.values())) if same else _text(networks)


def _of_file(file: Path) -> Conditions:
    content = read_json(file)
    if not isinstance(content, dict):
        return Conditions()
    measured = {"reference": str(content["reference"])} if "reference" in content else {}
    if "network" in content:
        measured["features"] = _text(content["network"])
    elif "features" in content:  # a fingerprint, in files of earlier versions
        measured["fingerprint of features"] = str(content["features"])
    sizes = content.get("picture_sizes")
    common = {"picture size": _size(sizes[0])} if isinstance(sizes, list) and sizes else {}
    return Conditions(common, {"": measured})


def _size(height_and_width: Any) -> str:
    return " x ".join(map(_text, reversed(height_and_width))) if isinstance(height_and_width, list) else "-"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=short_text)
