"""Recipe files as written: TOML with locations (file:line), `extends`, presets and overrides."""

from __future__ import annotations

import copy
import importlib.resources
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli
from attrs import define, field

from robustok_core.errors import RobustokError, did_you_mean, misspelt, raise_all
from robustok_core.recipe.limits import nesting_problem, text_problem
from robustok_core.recipe.structurer import Path as KeyPath
from robustok_core.values.wording import short, short_name, short_text

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY_NAME = r"""(?:"[^"]*"|'[^']*'|[A-Za-z0-9_\-]+)"""
_KEY = re.compile(rf"^\s*({_KEY_NAME}(?:\s*\.\s*{_KEY_NAME})*)\s*=")

_NAMES = "`robustok recipes` lists the bundled ones; a run's folder has a recipe.toml"
STUDIES = "study/"  # where, among the bundled files, those of `robustok study` lie
_LARGEST_FILE = 2**20
_LONGEST_CHAIN = 20


@define
class Source:
    """A table, and the location (file:line) of each path of keys in it."""

    table: dict[str, Any] = field(factory=dict)
    locations: dict[KeyPath, str] = field(factory=dict)

    def location(self, path: KeyPath) -> str:
        """The file and line of a path of keys, or of the nearest key above it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.locations:
                return self.locations[path[:length]]
        return "recipe"


def read_source(file: Path) -> Source:
    """Reads a recipe file and the recipes that it extends.

    Raises:
        RobustokError: if a file is missing, is not valid TOML, or extends itself.
    """
    return _read(file, ())


def _read(file: Path, readers: tuple[Path, ...]) -> Source:
    if file.resolve() in readers:
        raise RobustokError("the recipe extends itself", where=str(file), hint="break the circle of `extends`")
    if len(readers) > _LONGEST_CHAIN:
        raise RobustokError(f"more than {_LONGEST_CHAIN} recipes extend each other", where=str(file))
    source = _parse(file)
    bases = source.table.pop("extends", [])
    bases = [bases] if isinstance(bases, str) else bases
    where = source.location(("extends",))
    if not (isinstance(bases, list) and all(isinstance(base, str) for base in bases)):
        raise RobustokError("`extends` must be a file name or a list of them", where=where)
    merged = Source()
    for base in bases:
        try:
            found = find_recipe(base, near=file.parent)
        except RobustokError as error:
            raise RobustokError(f"extends: {error.what}", where=where, hint=error.hint) from error
        merged = merge(merged, _read(found, (*readers, file.resolve())))
    return merge(merged, source)


def _parse(file: Path) -> Source:
    text = _text(file)
    try:
        table = parse_toml(text)
    except tomli.TOMLDecodeError as error:
        line, column = getattr(error, "lineno", "?"), getattr(error, "colno", "?")
        reason = getattr(error, "msg", str(error))
        what = f"not valid TOML: {reason} (column {column})"
        raise RobustokError(what, where=f"{file}:{line}", hint="see https://toml.io") from error
    except ValueError as error:
        raise RobustokError(f"not a recipe: {error}", where=str(file)) from error
    lines = _key_lines(text)
    return Source(table, {(): str(file), **{path: f"{file}:{line}" for path, line in lines.items()}})


def _text(file: Path) -> str:
    """The text of a recipe; a byte order mark, which some editors write, is not part of it."""
    try:
        if (size := file.stat().st_size) > _LARGEST_FILE:
            raise RobustokError(f"a file of {size:,} bytes is too large to be a recipe", where=str(file))
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        hint = "save it as UTF-8, if it is a recipe"
        raise RobustokError("the recipe is not valid UTF-8", where=f"{file}:{line}", hint=hint) from error
    except OSError as error:
        raise RobustokError(f"the recipe cannot be read: {error.strerror or error}", where=str(file)) from error


def parse_toml(text: str) -> dict[str, Any]:
    """The table that a text in TOML holds.

    Raises:
        tomli.TOMLDecodeError, a ValueError: if it is not valid TOML.
        ValueError: if tables and lists are nested too deeply, or a number has thousands of digits.
    """
    try:
        table = tomli.loads(text)
    except RecursionError as error:
        raise ValueError("tables and lists are nested too deeply") from error
    except tomli.TOMLDecodeError:
        raise
    except ValueError as error:  # Python refuses to read decimal numbers of more than 4,300 digits
        raise ValueError("a number in it has too many digits") from error
    if (problem := nesting_problem(table)) is not None:
        raise ValueError(problem)
    return table


def _key_lines(text: str) -> dict[KeyPath, int]:
    """The line of each header and key. Keys of an inline table have the line of the key that holds it."""
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header:
            path = _through_arrays(tuple(_names(header[2])), counts)
            if header[1] == "[[":
                counts[path] = counts.get(path, -1) + 1
                path = (*path, counts[path])
            table = path
            lines.setdefault(path, number)
        elif key := _KEY.match(line):
            lines.setdefault((*table, *_names(key[1])), number)
    return lines


def _names(dotted: str) -> list[str]:
    return [name.strip("\"'") for name in re.findall(_KEY_NAME, dotted)]


def _through_arrays(path: KeyPath, counts: Mapping[KeyPath, int]) -> KeyPath:
    """Inserts array indices: [stage.losses] after [[stage]] refers to the last stage."""
    walked: KeyPath = ()
    for position, name in enumerate(path):
        walked = (*walked, name)
        if walked in counts and position + 1 < len(path):
            walked = (*walked, counts[walked])
    return walked


def find_recipe(name: str, near: Path = Path()) -> Path:
    """The file of a recipe: a path, relative to `near` or else to the current folder, or the name of a bundled recipe.

    Raises:
        RobustokError: if there is none; the hint names the closest bundled recipe.
    """
    if (problem := text_problem(name)) is not None:
        raise RobustokError(f"no recipe can be called this: {problem}")
    candidates = (near / name, Path(name))
    try:
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        folder = any(candidate.is_dir() for candidate in candidates)
    except OSError as error:  # a folder that may not be entered, a name that is too long
        raise RobustokError(f"the recipe cannot be read: {error.strerror or error}", where=short_name(name)) from error
    bundled = bundled_recipes() | bundled_studies()
    key = name.removesuffix(".toml")
    if key in bundled:
        return bundled[key]
    if folder:
        hint = "name the .toml file in it, or the folder of a run, which holds recipe.toml"
        raise RobustokError("this is a folder, not a recipe", where=name, hint=hint)
    raise RobustokError(
        f"no recipe file or bundled recipe is called {short_name(name)!r}", hint=misspelt(key, list(bundled)) or _NAMES
    )


def bundled_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name ("main_train", "imagenet256/robustok_tokenizer")."""
    return {name: file for name, file in _bundled().items() if not name.startswith(STUDIES)}


def bundled_studies() -> dict[str, Path]:
    """The files for `robustok study` that come with the package, by name ("study/claims")."""
    return {name: file for name, file in _bundled().items() if name.startswith(STUDIES)}


def _bundled() -> dict[str, Path]:
    package = Path(str(importlib.resources.files("robustok_core")))
    # An editable install has no copy inside the package; the checkout has the recipes beside it.
    roots = [root for root in (package / "recipes", package.parent / "recipes") if root.is_dir()]
    return {
        file.relative_to(root).with_suffix("").as_posix(): file for root in roots[:1] for file in root.rglob("*.toml")
    }


def merge(base: Source, over: Source) -> Source:
    """Merges `over` into `base`: tables key by key, stages by name; other values are replaced.

    A table that names another component (`use`) replaces the table in `base`, because one component's keys mean
    nothing to another.
    """
    merged = Source(copy.deepcopy(base.table), dict(base.locations))
    moved = _stage_places(base.table.get("stage", []), over.table.get("stage", []))
    _merge_tables(merged.table, over.table)
    for path, location in over.locations.items():
        merged.locations[_moved(path, moved)] = location
    return merged


def only_stages(source: Source, kept: Sequence[int]) -> Source:
    """A recipe with these of its stages only, by their places among them."""
    tables = source.table.get("stage", [])
    table = source.table | ({"stage": [tables[index] for index in kept]} if "stage" in source.table else {})
    locations = {
        ("stage", kept.index(int(path[1])), *path[2:]) if len(path) > 1 and path[0] == "stage" else path: location
        for path, location in source.locations.items()
        if len(path) < 2 or path[0] != "stage" or path[1] in kept
    }
    return Source(table, locations)


def _moved(path: KeyPath, moved: Mapping[int, int]) -> KeyPath:
    if len(path) > 1 and path[0] == "stage" and isinstance(path[1], int):
        return ("stage", moved.get(path[1], path[1]), *path[2:])
    return path


def stage_name(table: Any) -> str:
    """A stage's name: its `name`, or by default the component it uses."""
    if not isinstance(table, Mapping):
        return "?"
    name = table.get("name", table.get("use", "?"))
    return name if isinstance(name, str) else short_text(name)


def _stage_places(base: Any, over: Any) -> dict[int, int]:
    if not (isinstance(base, list) and isinstance(over, list)):
        return {}
    names = [stage_name(stage) for stage in base]
    positions = {}
    for index, stage in enumerate(over):
        name = stage_name(stage)
        if name not in names:
            names.append(name)
        positions[index] = names.index(name)
    return positions


def _merge_tables(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        current = base.get(key)
        if key == "stage" and isinstance(current, list) and isinstance(value, list):
            _merge_stages(current, value)
        elif (
            isinstance(current, dict)
            and isinstance(value, Mapping)
            and value.get("use", current.get("use")) == current.get("use")
        ):
            _merge_tables(current, value)
        else:
            base[key] = copy.deepcopy(value)


def _merge_stages(base: list[Any], over: Iterable[Any]) -> None:
    for stage in over:
        tables = [base_stage for base_stage in base if isinstance(base_stage, dict)]
        named = next((table for table in tables if stage_name(table) == stage_name(stage)), None)
        if named is None or not isinstance(stage, Mapping):
            base.append(copy.deepcopy(stage))
        else:
            _merge_tables(named, stage)


def parse_override(text: str) -> tuple[str, Any]:
    """Parses `key.path=value` from the command line; the value is read as TOML, a bare word as a string.

    Raises:
        RobustokError: if there is no `=`, or if the value begins like a table or list and is not valid TOML.
    """
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise RobustokError(
            f"--set needs KEY=VALUE, found {short_text(text)}", hint="for example --set perturbation.beta=0.5"
        )
    key = key.strip()
    where = f"--set {short_name(key)}"
    if (problem := text_problem(text)) is not None:
        raise RobustokError(problem, where=where)
    try:
        return key, parse_toml(f"value = {raw}")["value"]
    except tomli.TOMLDecodeError as error:
        if raw.lstrip().startswith(("{", "[")):
            hint = """as in --set 'tokenizer.quantizer={ use = "vq", width = 16 }'"""
            raise RobustokError(f"{short_text(raw)} is not valid TOML: {error}", where=where, hint=hint) from error
        return key, raw.strip()
    except ValueError as error:
        raise RobustokError(str(error), where=where) from error


def override(
    source: Source, changes: Mapping[str, Any] | Sequence[str], *, locations: Mapping[str, str] | None = None
) -> Source:
    """Sets keys by dotted path; a stage is addressed by name ("stage.train_tokenizer.epochs").

    Args:
        locations: the file and line of each change by its path, where they are from a file.

    Raises:
        RobustokError: what is wrong with each change that cannot be made.
    """
    if not isinstance(changes, Mapping):
        check_texts(changes, "overrides", '["run.seed=1"], or {"run.seed": 1}')
    elif others := [key for key in changes if not isinstance(key, str)]:
        raise RobustokError(f"a key of a recipe is a text, not {short(others[0])}", where="overrides")
    problems: list[RobustokError] = []
    values = dict(changes) if isinstance(changes, Mapping) else {}
    for text in changes if not isinstance(changes, Mapping) else ():
        with _collected(problems):
            values |= [parse_override(text)]
    changed = Source(copy.deepcopy(source.table), dict(source.locations))
    # A change of `use` clears the table, so it must come before the keys that are set in it.
    for key in sorted(values, key=lambda key: (not key.endswith(".use"), key.count("."))):
        with _collected(problems):
            _set(changed, key, values[key], (locations or {}).get(key, f"--set {short_name(key)}"))
    raise_all(problems)
    return changed


def check_texts(texts: Any, argument: str, example: str) -> None:
    """Refuses an argument of a program that is not a sequence of texts; one text is a mistake, not its letters."""
    alone = isinstance(texts, (str, bytes)) or not isinstance(texts, Sequence)
    if alone or not all(isinstance(text, (str, Path)) for text in texts):
        what = f"expected a list of texts, found {short(texts)}"
        raise RobustokError(what, where=argument, hint=f"for example {argument}={example}")


@contextmanager
def _collected(problems: list[RobustokError]) -> Iterator[None]:
    try:
        yield
    except RobustokError as error:
        problems.append(error)


def _set(source: Source, key: str, value: Any, at: str) -> None:
    names = key.split(".")
    where: Any = source.table
    path: KeyPath = ()
    for name in names[:-1]:
        if isinstance(where, list):
            stages = [stage_name(stage) for stage in where]
            if name not in stages:
                hint = f"did you mean '{'.'.join(names[1:])}'?" if name in source.table else did_you_mean(name, stages)
                raise RobustokError(f"no stage is called {short_text(name)}", where=at, hint=hint)
            path = (*path, stages.index(name))
            where = where[stages.index(name)]
        else:
            path = (*path, name)
            source.locations |= {} if name in where else {path: at}
            where = where.setdefault(name, {})
        if not isinstance(where, (dict, list)):
            raise RobustokError(f"{short_text(name)} is not a table", where=at)
    if not isinstance(where, dict):
        raise RobustokError("name a stage and one of its keys", where=at, hint="stage.NAME.KEY=VALUE")
    if names[-1] == "use" and where.get("use") != value:
        for option in [option for option in where if option != "name"]:  # a stage keeps its name
            del where[option]
    where[names[-1]] = value
    source.locations[(*path, names[-1])] = at
