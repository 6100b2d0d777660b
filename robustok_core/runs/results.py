"""Results in files: results.json of a run, its stages' in run.json, and what `robustok evaluate --out` writes.

Each is a JSON object of `Result.table()` by name. Files of earlier versions hold bare numbers, and what belongs to a
result stands beside it under a longer name ("gfid_num_images", "pfid/alpha0.5_delta6"): this module alone reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustok_core.errors import RobustokError, RunError
from robustok_core.runs.files import read_json
from robustok_core.values.result import Result

RESULTS_FILE = "results.json"

#: How names of earlier versions end, and where the number belongs now: an attribute of the result, or one of its
#: details and that detail's type.
_COUNTS = {"_num_images": "num_images", "_num_reference_images": "num_reference"}
_DETAILS = {"_num_cells": int, "_deltas_scaled_from": int, "_std": float}


def tables_of(results: Mapping[str, Result]) -> dict[str, dict[str, Any]]:
    """Results as a file holds them."""
    return {name: result.table() for name, result in results.items()}


def results_of(tables: Mapping[str, Any]) -> dict[str, Result]:
    """Results as a file holds them, in their order; of an earlier version too.

    Raises:
        TypeError, ValueError, KeyError: they are no results.
    """
    numbers = {name: value for name, value in tables.items() if isinstance(value, (int, float))}
    earlier = _put_together(numbers)
    new = {name: Result.from_table(table) for name, table in tables.items() if name not in numbers}
    return {name: new[name] if name in new else earlier[name] for name in tables if name in new or name in earlier}


def read_results(path: Path) -> dict[str, Result]:
    """The results of a run ("stage/metric"), or of a file that `robustok evaluate --out` wrote ("metric").

    Args:
        path: the folder of a run, or a file.

    Raises:
        RobustokError: there are none, or the file holds something else.
    """
    file = path / RESULTS_FILE if path.is_dir() else path
    if not file.is_file():
        hint = "name the folder of a run that has finished, or a file of `robustok evaluate --out`"
        raise RobustokError("there are no results", where=str(path), hint=hint)
    try:
        content = read_json(file)
    except RunError as error:
        raise RobustokError(f"this is no JSON file: {error.what}", where=str(file)) from error
    try:
        return results_of(content.get("results", content))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        hint = "`robustok evaluate --out` writes such a file"
        raise RobustokError("this holds no results by name", where=str(file), hint=hint) from error


def _put_together(numbers: Mapping[str, float]) -> dict[str, Result]:
    """The results of an earlier version: a number that belongs to another one is put there.

    Such a file does not say of any result whether higher is better.
    """
    beside: dict[str, dict[str, Any]] = {}
    results = []
    for name, number in numbers.items():
        owner = next((owner for owner in _owners(name) if owner in numbers), None)
        if owner is None:
            results.append(name)
        else:
            _put(beside.setdefault(owner, {"details": {}}), name.removeprefix(owner), number)
    return {name: Result(numbers[name], **beside.get(name, {})) for name in results}


def _owners(name: str) -> list[str]:
    """Of which results a number may be, by its name."""
    endings = [ending for ending in (*_COUNTS, *_DETAILS) if name.endswith(ending)]
    mean, slash, _ = name.rpartition("/")
    return [name.removesuffix(ending) for ending in endings] + ([mean] if slash else [])


def _put(beside: dict[str, Any], ending: str, number: float) -> None:
    """Puts a number among the attributes of the result whose name stands before `ending`."""
    if ending in _COUNTS:
        beside[_COUNTS[ending]] = int(number)
    elif ending in _DETAILS:
        beside["details"][ending.removeprefix("_")] = _DETAILS[ending](number)
    else:
        beside["details"].setdefault("cells", {})[ending.removeprefix("/")] = number
