"""The recipes that a run's folder held before: what was changed, and where their results and artifacts lie."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import tomli
from attrs import frozen

from robustok_core.runs.made_from import changes_of
from robustok_core.runs.records import record_of
from robustok_core.runs.run_record import PastRecord, read_run

RECIPE_FILE, RECIPE_COPY, HISTORY = "recipe.toml", ".recipe.toml.copy", "history"
_MOST_CHANGES = 10
_NONE = "not set"
#: Keys of a recipe that tell runs apart, but not what they do.
_OF_ONE_RUN = ("run.name", "run.seed", "run.out", "run.report", "run.trackers")
#: In the name of a run's folder: its seed, before the number that --fresh adds.
SEED_IN_NAME = re.compile(r"[-_.]?seed[-_]?\d+(?=(-\d+)?$)")
#: In the name of an artifact: the fingerprint of the stage that made it.
_FINGERPRINT_IN_NAME = re.compile(r"-[0-9a-f]{16}$")


@frozen(kw_only=True)
class PastRecipe:
    """A recipe that was replaced.

    Attributes:
        number: of its files in history/. replaced: when.
        recipe: its file; None if recipe.toml is the same, and the data, an input or the code was another.
        results: the file of its results, or None. changes: what differs in the current recipe.
        artifacts: their folders; None if an earlier version replaced it, which did not record them.
        loaded: where the artifacts from [load] were, by name.
    """

    number: int
    replaced: str
    recipe: Path | None
    results: Path | None
    changes: Sequence[str]
    artifacts: Sequence[Path] | None
    loaded: Mapping[str, str]


def past_recipes(run: Path) -> list[PastRecipe]:
    """All earlier recipes of a run's folder, oldest first.

    Raises:
        RobustokError: if it is not a run's folder, or its run.json is damaged.
    """
    record = read_run(run)
    known = {past.number: past for past in (record_of(PastRecord, entry, run) for entry in record.get("history", []))}
    current = _text(run / RECIPE_FILE)
    found = []
    for number in sorted({*known, *_numbers(run)}):
        recipe, results = (history_file(run, name, number) for name in (RECIPE_FILE, "results.json"))
        past = known.get(number)
        found.append(
            PastRecipe(
                number=number,
                replaced=past.replaced if past else _time_of(recipe if recipe.is_file() else results),
                recipe=recipe if recipe.is_file() else None,
                results=results if results.is_file() else None,
                changes=_changes(recipe, current, record, past),
                artifacts=None if past is None else artifacts_of(run, record, past.current),
                loaded={} if past is None else {name: _place(entry) for name, entry in past.inputs.items()},
            )
        )
    return found


def _changes(recipe: Path, current: str, record: Mapping[str, Any], past: PastRecord | None) -> list[str]:
    """What differs from the current recipe, or in what its stages read."""
    if found := changes_between(_text(recipe), current) if recipe.is_file() else []:
        return found
    if past is not None and past.current == record["current"]:
        return ["nothing: the folder holds it again"]
    found = [] if past is None else _stage_changes(record, past.current)
    return found or ["not the recipe, but the data, an input or the code"]


def _stage_changes(record: Mapping[str, Any], stages: Mapping[str, str]) -> list[str]:
    """What differs, besides the recipe, in what the stages of a past recipe and of the current one are made from."""
    pairs = (
        (stage, *(record["stages"].get(f"{stage}-{own}", {}) for own in (fingerprint, record["current"].get(stage))))
        for stage, fingerprint in stages.items()
    )
    found = ((stage, changes_of(old, new)) for stage, old, new in pairs)
    return [f"{stage}: {' and '.join(changed)}" for stage, changed in found if changed]


def _place(entry: Any) -> str:
    return str(entry["path"]) if isinstance(entry, Mapping) and "path" in entry else str(entry)


def artifacts_of(run: Path, record: Mapping[str, Any], stages: Mapping[str, str]) -> list[Path]:
    """The folders of the artifacts that stages with these fingerprints made, if they exist."""
    folders = [
        run / "artifacts" / f"{name}-{fingerprint}"
        for stage, fingerprint in stages.items()
        for name in record["stages"].get(f"{stage}-{fingerprint}", {}).get("makes", [])
    ]
    return [folder for folder in folders if folder.is_dir()]


def history_file(run: Path, name: str, number: int) -> Path:
    """Where the file of this name of a past recipe lies."""
    path = Path(name)
    return run / HISTORY / f"{path.stem}-{number}{path.suffix}"


def next_number(run: Path, record: Mapping[str, Any]) -> int:
    """The number of the next past recipe; no file and no record has it."""
    return max([0, *_numbers(run), *(entry["number"] for entry in record.get("history", []))]) + 1


def _numbers(run: Path) -> list[int]:
    names = [path.name for path in (run / HISTORY).iterdir()] if (run / HISTORY).is_dir() else []
    return [int(match[1]) for name in names if (match := re.fullmatch(r"(?:recipe|results)-(\d{1,9})\.\w+", name))]


def changes_between(old: str, new: str) -> list[str]:
    """What differs between two recipes, a line for each key: "perturbation.beta: 0.1 -> 0.5"."""
    tables = []
    for text in (old, new):
        try:
            tables.append(settings_in(text))
        except ValueError:
            return ["one of them is not valid TOML"]
    return _changes_between(*tables) or (["the order of its stages"] if list(tables[0]) != list(tables[1]) else [])


def changes_beyond_seed(old: str, new: str) -> list[str]:
    """What differs between two recipes besides their seeds; nothing if their runs are repetitions of each other.

    Names of runs, where they lie, their reports and trackers do not count. Two runs that load from other runs are
    repetitions if these are called alike but for their seeds.
    """
    try:
        one, other = (_without_seed(settings_in(text)) for text in (old, new))
    except ValueError:
        return ["one of them is not valid TOML"]
    return _changes_between(one, other) or (["the order of its stages"] if list(one) != list(other) else [])


def _without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _place_without_seed(value) if key.startswith("load.") and isinstance(value, str) else value
        for key, value in settings.items()
        if key not in _OF_ONE_RUN
    }


def _place_without_seed(place: str) -> str:
    names = [SEED_IN_NAME.sub("", name) for name in Path(place).parts]
    if len(names) > 1 and names[-2] == "artifacts":
        names[-1] = _FINGERPRINT_IN_NAME.sub("", names[-1])
    return str(Path(*names))


def _changes_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    keys = [key for key in dict.fromkeys([*before, *after]) if before.get(key, _NONE) != after.get(key, _NONE)]
    lines = []
    for group in dict.fromkeys(_group(key) for key in keys):
        inside = [key for key in keys if _group(key) == group]
        if not any(_group(key) == group for key in after):
            lines.append(f"{group}: removed")
        elif not any(_group(key) == group for key in before):
            lines.append(f"{group}: added")
        else:
            lines += [f"{key}: {before.get(key, _NONE)} -> {after.get(key, _NONE)}" for key in inside]
    return lines


def settings_in(recipe: str) -> dict[str, Any]:
    """The values of a recipe by dotted path: "stage.train_tokenizer.epochs".

    Raises:
        ValueError: if it is not valid TOML.
    """
    try:
        return values_by_path(_by_name(tomli.loads(recipe)))
    except RecursionError as error:
        raise ValueError("tables are nested too deeply") from error


def different_settings(runs: Sequence[Path]) -> dict[str, list[str]]:
    """What the recipes of runs say differently, by key, for each run as text; "-" where a run has no recipe.

    Names of runs are left out, and so are the options of a component where the runs use different ones.
    """
    recipes = [_settings_of(run) for run in runs]
    known = [recipe for recipe in recipes if recipe is not None]
    keys = dict.fromkeys(key for recipe in known for key in recipe if key not in ("run.name", "run.out"))
    differ = [key for key in keys if any(recipe.get(key, _NONE) != known[0].get(key, _NONE) for recipe in known)]
    other = tuple(key.removesuffix("use") for key in differ if key.endswith(".use"))
    shown = [key for key in differ if key.endswith(".use") or not key.startswith(other)]
    return {key: ["-" if each is None else str(each.get(key, _NONE)) for each in recipes] for key in shown}


def _settings_of(run: Path) -> dict[str, Any] | None:
    try:
        return settings_in((run / RECIPE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def described(changes: Sequence[str]) -> str:
    """Up to ten changes as one line."""
    more = f" and {len(changes) - _MOST_CHANGES} more" if len(changes) > _MOST_CHANGES else ""
    return "; ".join(changes[:_MOST_CHANGES]) + more


def _by_name(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with its stages by name instead of in a list."""
    stages = recipe.get("stage")
    if isinstance(stages, list) and all(isinstance(stage, dict) for stage in stages):
        return {**recipe, "stage": {str(stage.get("name", stage.get("use"))): stage for stage in stages}}
    return recipe


def values_by_path(value: Any, path: str = "") -> dict[str, Any]:
    """All values by dotted path."""
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= values_by_path(item, f"{path}.{key}" if path else key)
    return found


def _group(key: str) -> str:
    """The table, or the stage, that a key belongs to."""
    parts = key.split(".")
    return ".".join(parts[: 2 if parts[0] == "stage" else 1])


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return "damaged = "


def _time_of(file: Path) -> str:
    return datetime.fromtimestamp(file.stat().st_mtime, timezone.utc).isoformat(timespec="seconds")
