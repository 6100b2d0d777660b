"""Results in files: a run's results.json and run.json, and the files that `robustok evaluate --out` writes.

Each is a JSON object that maps names to `Result.table()`. Files of earlier versions hold bare numbers, and a result's
attributes under longer names beside it ("gfid_num_images", "pfid/alpha0.5_delta6"). Only this module reads those.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustok_core.errors import RobustokError, RunError
from robustok_core.runs.files import read_json
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.runs.near_runs import run_hint
from robustok_core.runs.records import record_of
from robustok_core.runs.run_record import RUN_FILE, read_run
from robustok_core.values.result import Result

RESULTS_FILE = "results.json"

#: Suffixes of names in earlier versions, and where the number belongs now: an attribute of the result, or one of its
#: details and that detail's type.
_COUNTS = {"_num_images": "num_images", "_num_reference_images": "num_reference"}
_DETAILS = {"_num_cells": int, "_deltas_scaled_from": int, "_std": float}


def tables_of(results: Mapping[str, Result]) -> dict[str, dict[str, Any]]:
    """Converts results to the tables that files hold."""
    return {name: result.table() for name, result in results.items()}


def results_of(tables: Any, file: Path = Path(RESULTS_FILE)) -> dict[str, Result]:
    """Converts the tables of a file, also of an earlier version, to results in the file's order.

    Raises:
        RunError: naming the file and the key, if they are not results.
    """
    held = record_of(dict[str, Any], tables, file)
    numbers = {name: value for name, value in held.items() if isinstance(value, (int, float))}
    earlier = _put_together(record_of(dict[str, float], numbers, file))
    others = {name: _with_number(table) for name, table in held.items() if name not in numbers}
    new = record_of(dict[str, Result], others, file)
    return {name: new[name] if name in new else earlier[name] for name in held if name in new or name in earlier}


def _with_number(table: Any) -> Any:
    """The table of a result; a value of null, as `--json` prints it, is NaN."""
    return {**table, "value": math.nan} if isinstance(table, Mapping) and table.get("value", 0) is None else table


def read_results(path: Path) -> dict[str, Result]:
    """The results of a run, by "stage/metric", or of a file that `robustok evaluate --out` wrote, by "metric".

    Args:
        path: the folder of a run, or a file.

    Raises:
        RobustokError: if there are no results, or the file holds something else.
    """
    file = path / RESULTS_FILE if path.is_dir() else path
    if not file.is_file():
        hint = "name the folder of a finished run, or a file written by `robustok evaluate --out`"
        if not path.exists():
            raise RobustokError("there is no such run or file", where=str(path), hint=run_hint(path))
        raise RobustokError("there are no results", where=str(path), hint=hint)
    try:
        content = read_json(file)
    except RunError as error:
        raise RobustokError(f"this is not a JSON file: {error.what}", where=str(file)) from error
    held = content.get("results", content) if isinstance(content, Mapping) else content
    try:
        results = results_of(held, file)
    except RunError as error:
        what = f"this file does not hold results by name: {error.what}"
        raise RobustokError(what, where=str(file), hint="`robustok evaluate --out` writes such a file") from error
    if path.is_dir() and not _agrees_with_run(path, results):
        hint = f"`robustok run {path}` writes it again"
        raise RobustokError("damaged: it does not agree with run.json", where=str(file), hint=hint)
    return results


def stage_results(entry: Mapping[str, Any], run: Path) -> dict[str, Result]:
    """The results of a stage's entry in run.json.

    Raises:
        RunError: if they are damaged.
    """
    return results_of(entry.get("results", {}), run / RUN_FILE)


def _agrees_with_run(run: Path, results: Mapping[str, Result]) -> bool:
    """Whether these are the results in run.json, if it can be read and this version wrote it.

    They are those of all finished stages. A file that was not damaged since it was written may lack later ones.
    """
    try:
        record = read_run(run)
    except RunError:  # `robustok verify` says why
        return True
    if record.get("recipe") is None:
        return True
    written = record.get("results")
    if written is not None and written == fingerprint_of((run / RESULTS_FILE).read_text(encoding="utf-8")):
        return True
    found: dict[str, Result] = {}
    for stage, fingerprint in record["current"].items():
        entry = record["stages"].get(f"{stage}-{fingerprint}", {})
        if entry.get("state") == "done":
            found |= {f"{stage}/{name}": result for name, result in stage_results(entry, run).items()}
        elif written is None:  # an earlier version wrote it
            return True
    return _text(found) == _text(results)


def _text(results: Mapping[str, Result]) -> str:
    return json.dumps(tables_of(results), sort_keys=True)  # as text, a number that is not finite equals itself


def holds_a_part(file: Path, results: Mapping[str, Result]) -> bool:
    """Whether a file holds some of these results, and no others."""
    try:
        held = read_results(file)
    except RobustokError:
        return False
    part = {name: result for name, result in results.items() if name in held}
    return len(part) < len(results) and _text(held) == _text(part)


def _put_together(numbers: Mapping[str, float]) -> dict[str, Result]:
    """Results from the bare numbers of an earlier version; a number that describes another becomes its attribute.

    Such files do not record whether higher is better.
    """
    attributes: dict[str, dict[str, Any]] = {}
    results = []
    for name, number in numbers.items():
        owner = next((owner for owner in _owners(name) if owner in numbers), None)
        if owner is None:
            results.append(name)
        else:
            _put(attributes.setdefault(owner, {"details": {}}), name.removeprefix(owner), number)
    return {name: Result(numbers[name], **attributes.get(name, {})) for name in results}


def _owners(name: str) -> list[str]:
    """The names of the results that a number may describe, judging by its name."""
    endings = [ending for ending in (*_COUNTS, *_DETAILS) if name.endswith(ending)]
    mean, slash, _ = name.rpartition("/")
    return [name.removesuffix(ending) for ending in endings] + ([mean] if slash else [])


def _put(attributes: dict[str, Any], ending: str, number: float) -> None:
    """Stores a number, whose name is its result's name plus `ending`, among that result's attributes."""
    if ending in _COUNTS:
        attributes[_COUNTS[ending]] = int(number)
    elif ending in _DETAILS:
        attributes["details"][ending.removeprefix("_")] = _DETAILS[ending](number)
    else:
        attributes["details"].setdefault("cells", {})[ending.removeprefix("/")] = number
