"""May these numbers be compared? What results depend on besides what is compared, and where that differs.

Every command that sets results side by side asks here: `compare`, with and without --group, the report of several runs,
its correlations, the guidance sweep, and studies. What a result depends on is read from a run's folder (its recipe, and
the data's fingerprints in run.json) or from a file of `robustok evaluate`, and from the result itself.
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

NUM_IMAGES, NUM_REFERENCE = "numbers of images", "numbers of real images"
#: Distances depend on these numbers, so that commands refuse to set unequal ones side by side.
COUNTS = (NUM_IMAGES, NUM_REFERENCE)
VALIDATION_IMAGES = "validation images"
REFERENCE, REFERENCE_CONTENT = "reference", "content of the reference"
TRAINING_IMAGES, GUIDANCE_SCALE = "training images", "guidance.scale"
#: These may be what is compared: other training images, and how samples are drawn.
_MAY_DIFFER = (TRAINING_IMAGES, "guidance.", "sampling.", "precision of samples")
_NOT_KNOWN = "-"
#: Those of pFID, where they were scaled to one size of codebook.
_CELLS = "cells"
#: What results say since a metric measures otherwise, and what those measured that do not say it.
_EARLIER = {"SSIM windows": "as in earlier versions"}


@frozen
class Conditions:
    """What is known of one run; what is not known is left out.

    Attributes:
        common: values by what they are ("picture size"), for all results.
        stages: the same, of each stage by name, for the results that depend on the number of images.
        metrics: the options of each metric of each stage, by "metrics.NAME".
        samplers: how the samples that a stage measures were made, by stage.
    """

    common: Mapping[str, str] = field(factory=dict)
    stages: Mapping[str, Mapping[str, str]] = field(factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(factory=dict)
    samplers: Mapping[str, Mapping[str, Any]] = field(factory=dict)

    def of(self, name: str, result: Result) -> dict[str, str]:
        """What a result depends on; `name` is "stage/metric"."""
        stage = self.stages.get(_stage_of(name), self.stages.get("", {}))
        measured = {key: value for key, value in stage.items() if result.num_images is not None or key == "limit"}
        return {**self.common, **measured}


def read_conditions(path: Path) -> Conditions:
    """The conditions of a run's results, or of a file with results; empty where nothing is recorded."""
    try:
        return _of_run(path) if path.is_dir() else _of_file(path)
    except RobustokError:  # the results can be shown without it
        return Conditions()


@frozen
class Number:
    """A result, by its name "stage/metric", and the conditions of the run that it is from."""

    conditions: Conditions
    name: str
    result: Result


def numbers_of(
    conditions: Sequence[Conditions], name: str, results: Sequence[Mapping[str, Result]]
) -> list[Number | None]:
    """The result of this name of each run, None where a run does not have it."""
    return [
        Number(run, name, found[name]) if name in found else None
        for run, found in zip(conditions, results, strict=True)
    ]


def differences(numbers: Sequence[Number | None]) -> dict[str, list[str]]:
    """What differs between numbers: by what it is, the value of each, "-" where it is not known."""
    known = [{} if number is None else _known(number) for number in numbers]
    compared = [values for values, number in zip(known, numbers, strict=True) if number is not None]
    keys = list(dict.fromkeys(key for values in compared for key in values))
    if all(VALIDATION_IMAGES in values for values in compared):  # then it does not matter where the images are
        keys = [key for key in keys if not key.startswith("data.")]
    if all(REFERENCE_CONTENT in values for values in compared):  # nor here, or under which name
        keys = [key for key in keys if key != REFERENCE]
    found = {key: values for key in keys if _differ(values := [each.get(key, _NOT_KNOWN) for each in known])}
    return found | _different_details(numbers) | _different_options(numbers)


def forbidding(found: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Those of the differences that forbid to compare numbers. The others may be what is compared."""
    return {key: values for key, values in found.items() if not key.startswith(_MAY_DIFFER)}


def why_not(numbers: Sequence[Number | None], who: Sequence[str], *, scaled: bool = False) -> str | None:
    """Why numbers may not be compared, in words; None if they may.

    Args:
        who: names the run of each number.
        scaled: whether cells of pFID may differ that one rule has scaled to codebooks of different sizes.
    """
    found = {key: values for key, values in forbidding(differences(numbers)).items() if not (scaled and key == _CELLS)}
    return "; ".join(f"different {key} ({named(values, who)})" for key, values in found.items()) or None


def named(values: Sequence[str], who: Sequence[str]) -> str:
    """The values of a difference, each once, with the first run that has it."""
    first = {value: run for run, value in reversed(list(zip(who, values, strict=True)))}
    return ", ".join(f"{first[value]}: {value}" for value in dict.fromkeys(values) if value != _NOT_KNOWN)


def comparable_groups(rows: Sequence[Sequence[Number]], *, may_differ: Sequence[str] = ()) -> list[list[int]]:
    """The runs in groups within which nothing differs but what `may_differ` begins with; the largest group first.

    Args:
        rows: numbers that are looked at together, each for every run.
    """
    groups: list[list[int]] = []
    for run in range(len(rows[0])):
        for group in groups:
            found = (differences([row[each] for each in (*group, run)]) for row in rows)
            if all(key.startswith(tuple(may_differ)) for each in found for key in each):
                group.append(run)
                break
        else:
            groups.append([run])
    return sorted(groups, key=len, reverse=True)


def _stage_of(name: str) -> str:
    return name.rpartition("/")[0]


def _differ(values: Sequence[str]) -> bool:
    return len(set(values) - {_NOT_KNOWN}) > 1


def _known(number: Number) -> dict[str, str]:
    """What a number depends on, with how many images there were."""
    run, result, stage = number.conditions, number.result, _stage_of(number.name)
    counts = zip(COUNTS, (result.num_images, result.num_reference), strict=True)
    known = run.of(number.name, result) | {key: f"{count:,}" for key, count in counts if count is not None}
    if stage in run.stages:
        known.setdefault("limit", "all")
        if run.stages[stage].get(REFERENCE) == "train" and TRAINING_IMAGES in run.common:
            known["real images"] = run.common[TRAINING_IMAGES]
    known.pop("features", None)  # networks are compared metric by metric
    return known


def _different_details(numbers: Sequence[Number | None]) -> dict[str, list[str]]:
    """What results say themselves of how they were measured: texts, and how many images a mean or neighbours are of.

    Where `deltas_scaled_from` says that pFID's cells were chosen for one size of codebook (docs/pfid.md), these too.
    """
    known = [None if number is None else _how(number.result.details) for number in numbers]
    keys = dict.fromkeys(key for values in known if values is not None for key in values)
    table = {key: [_detail(key, number) for number in numbers] for key in keys}
    return {key: values for key, values in table.items() if _differ(values)}


def _detail(key: str, number: Number | None) -> str:
    if number is None:
        return _NOT_KNOWN
    # Results of some earlier versions have no details at all.
    default = _EARLIER.get(key, "none" if number.result.details else _NOT_KNOWN)
    return _how(number.result.details).get(key, default)


def _how(details: Mapping[str, Any]) -> dict[str, str]:
    found = {key: value for key, value in details.items() if isinstance(value, str)}
    if isinstance(count := details.get("num_images"), int):
        found["numbers of images in the mean"] = f"{count:,}"
    if isinstance(count := details.get("train_images"), int):
        found["numbers of training images"] = f"{count:,}"
    if "deltas_scaled_from" in details:
        cells = details.get("cells")
        found[_CELLS] = ", ".join(map(str, cells)) if isinstance(cells, Mapping) else "unknown"
    return found


def _different_options(numbers: Sequence[Number | None]) -> dict[str, list[str]]:
    """Networks and other options of the metrics that several runs have in a stage, and of the samplers before it.

    Which metric gave a result is not recorded, so each metric of a stage counts for all of its results that depend on
    the number of images.
    """
    runs = [
        (number.conditions, _stage_of(number.name))
        if number is not None and number.result.num_images is not None
        else (Conditions(), "")
        for number in numbers
    ]
    found: dict[str, list[str]] = {}
    metrics = [run.metrics.get(stage, run.metrics.get("", {})) for run, stage in runs]
    networks = [_network(each) for each in metrics]
    for metric in dict.fromkeys(name for each in metrics for name in each if name):
        unequal = _unequal_options([each.get(metric) for each in metrics])
        if any(option.startswith("features.") for option in unequal):
            found["features"] = networks
        found |= {f"{metric}.{key}": texts for key, texts in unequal.items() if not key.startswith("features.")}
    if _disjoint(metrics):
        found["features"] = networks
    return found | _unequal_options([run.samplers.get(stage) for run, stage in runs])


def _networks(metrics: Mapping[str, Any]) -> dict[str, str]:
    return {name: _text(table["features"]) for name, table in metrics.items() if "features" in table}


def _network(metrics: Mapping[str, Any]) -> str:
    """The networks of a stage's metrics as text: one, or each by its metric."""
    networks = _networks(metrics)
    texts = list(dict.fromkeys(networks.values()))
    return texts[0] if len(texts) == 1 else _text(networks) if networks else _NOT_KNOWN


def _disjoint(metrics: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the metrics of two runs are called differently, and have no network in common."""
    known = [(set(each) - {""}, set(_networks(each).values())) for each in metrics if _networks(each)]
    return any(not one[0] & other[0] and not one[1] & other[1] for one in known for other in known)


def _unequal_options(tables: Sequence[Mapping[str, Any] | None]) -> dict[str, list[str]]:
    """The options, by dotted path, that are not equal in all tables that are known."""
    flat = [None if each is None else dict(_leaves(each)) for each in tables]
    keys = dict.fromkeys(key for each in flat if each is not None for key in each)
    texts = {key: [_NOT_KNOWN if each is None else each.get(key, "not set") for each in flat] for key in keys}
    return {key: values for key, values in texts.items() if _differ(values)}


def _leaves(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", _text(value)


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
    named = {stage_name(stage): stage for stage in (stages if isinstance(stages, list) else [])}
    return Conditions(
        common,
        {name: dict(_measured_with(stage)) for name, stage in named.items()},
        {name: _metrics_of(stage) for name, stage in named.items()},
        dict(_samplers(named)),
    )


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
    for key in (REFERENCE, "limit"):
        if key in stage:
            yield key, str(stage[key])
    if (network := _network(_metrics_of(stage))) != _NOT_KNOWN:
        yield "features", network


def _metrics_of(stage: Any) -> dict[str, dict[str, Any]]:
    """The tables of a stage's metrics, by "metrics.NAME"; of other components, only their networks."""
    groups = {key: value for key, value in stage.items() if isinstance(value, dict)} if isinstance(stage, dict) else {}
    found = {}
    for key, group in groups.items():
        for name, metric in group.items():
            if isinstance(metric, dict) and key.endswith("metrics"):
                found[f"{key}.{name}"] = metric
            elif isinstance(metric, dict) and "features" in metric:
                found[f"{key}.{name}"] = {"features": metric["features"]}
    return found


def _samplers(stages: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """By stage, how the last stage up to it that makes samples makes them."""
    last: dict[str, Any] | None = None
    for name, stage in stages.items():
        if isinstance(stage, dict) and "num_samples" in stage and ("guidance" in stage or "sampling" in stage):
            last = {key: stage[key] for key in ("guidance", "sampling") if key in stage}
            for key in ("classes", "precision"):
                last |= {f"{key} of samples": stage[key]} if key in stage else {}
        if last is not None:
            yield name, last


def _of_file(file: Path) -> Conditions:
    content = read_json(file)
    if not isinstance(content, dict):
        return Conditions()
    names = {"reference": REFERENCE, "reference_content": REFERENCE_CONTENT}
    measured = {name: str(content[key]) for key, name in names.items() if key in content}
    tables = content.get("metrics")
    options = tables.items() if isinstance(tables, dict) else ()
    known = {f"metrics.{key}": table for key, table in options if isinstance(table, dict)}
    if "network" in content:  # metrics may have networks of their own
        measured["features"] = _text(content["network"])
        known = {"": {"features": content["network"]}, **known}
    elif "features" in content:  # a fingerprint, in files of earlier versions
        measured["fingerprint of features"] = str(content["features"])
    sizes = content.get("picture_sizes")
    common = {"picture size": _size(sizes[0])} if isinstance(sizes, list) and sizes else {}
    return Conditions(common, {"": measured}, {"": known} if known else {})


def _size(height_and_width: Any) -> str:
    return " x ".join(map(_text, reversed(height_and_width))) if isinstance(height_and_width, list) else "-"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=short_text)
