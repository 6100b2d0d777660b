"""Turns a recipe's tables into checked configuration objects; all mistakes are collected in one pass."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any, Literal, get_args, get_origin

import attrs
from attrs import NOTHING, field, frozen

from robustok_core.errors import EXIT_USAGE, RobustokError, did_you_mean
from robustok_core.recipe.limits import LARGEST_INTEGER, value_problem
from robustok_core.values.ignored import refused_options
from robustok_core.values.spec import Spec, is_sampler_options, wrong_name
from robustok_core.values.strict import strict_converter
from robustok_core.values.wording import short, short_text

Path = tuple[str | int, ...]


@frozen
class Problem:
    """A mistake in a recipe: the path of keys, what is wrong, and a hint what to do.

    Attributes:
        unknown: whether the last key is not known, so that another one may be meant: see near_keys.py.
    """

    path: Path
    what: str
    hint: str | None = None
    unknown: bool = field(default=False, eq=False)


_CONVERTER = strict_converter(detailed_validation=False)


#: Finds the class of (kind, name), or returns a Problem that says why there is none.
Lookup = Callable[[str, str, Path], "type | Problem"]


class Structurer:
    """Builds configurations from tables and collects all problems."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self.problems: list[Problem] = []

    def spec(self, kind: str, table: Any, path: Path) -> Spec | None:
        """The component that a table with `use` names, or None if the table has problems."""
        if not isinstance(table, Mapping):
            return self._problem(path, f"expected a table with `use`, found {type(table).__name__}")
        if not isinstance(table.get("use"), str):
            return self._problem(path, f'this {kind} needs `use = "NAME"`', f"`robustok plugins {kind}` lists names")
        factory = self._lookup(kind, table["use"], (*path, "use"))
        if isinstance(factory, Problem):
            self.problems.append(factory)
            return None
        rest = {key: value for key, value in table.items() if key != "use"}
        config = self.config(factory.Config, rest, path)  # type: ignore[attr-defined]
        return None if config is None else Spec(kind=kind, name=table["use"], factory=factory, config=config)

    def config(self, cls: type, table: Mapping[str, Any], path: Path) -> Any:
        """An instance of an attrs class, or None if the table has problems."""
        before = len(self.problems)
        known = {a.name: a for a in attrs.fields(attrs.resolve_types(cls))}
        for key in table:
            if key not in known:
                moved = getattr(cls, "MOVED", {}).get(key)
                what, hint = f"unknown key {short_text(key)}", moved or did_you_mean(key, list(known))
                self.problems.append(Problem((*path, key), what, hint, unknown=moved is None))
        values = {}
        for name, attribute in known.items():
            raw = table.get(name, attribute.metadata.get("table", NOTHING))
            if raw is NOTHING or (raw is None and attribute.default is not NOTHING):
                if attribute.default is NOTHING:
                    self._problem(path, f"the key {name!r} is required", attribute.metadata.get("doc"))
                continue
            values[name] = self._field(attribute, raw, (*path, name))
        if len(self.problems) > before:
            return None
        try:
            config = cls(**values)
        except (ValueError, TypeError, ArithmeticError) as error:
            return self._problem(path, _validator_message(error))
        except RobustokError as error:
            return self._refused(error, path, known)
        self._check_needed(config, known, values, path)
        return config if len(self.problems) == before else None

    def _check_needed(self, config: Any, known: Mapping[str, Any], given: Mapping[str, Any], path: Path) -> None:
        """Asks for an option whose default leaves those without effect that its `needed_by` names."""
        for name, attribute in known.items():
            others = refused_options(config, *attribute.metadata.get("needed_by", ()))
            if others and name not in given:
                what = f"{' and '.join(others)} {'has' if len(others) == 1 else 'have'} no effect without {name!r}"
                self._problem(path, what, f"set {name}: {attribute.metadata.get('doc')}")

    def _field(self, attribute: Any, raw: Any, path: Path) -> Any:
        kind = attribute.metadata.get("kind")
        if kind is not None and attribute.metadata.get("named"):
            return self._named(kind, {} if raw is None else raw, path)
        if kind is not None:
            return self.spec(kind, raw, path)
        if is_sampler_options(attribute):
            if isinstance(raw, Mapping) or attrs.has(type(raw)):
                return raw
            self._problem(path, f"expected a table, found {short(raw)}")
            return NOTHING
        largest = attribute.metadata.get("largest", LARGEST_INTEGER)
        is_text = attribute.type is str and not isinstance(raw, str)  # a number there needs quotes, not a range
        if nested_config(attribute.type) is None and not is_text and (what := value_problem(raw, largest)) is not None:
            self._problem(path, what, attribute.metadata.get("doc"))
            return NOTHING
        value = self._value(raw, attribute.type, path)
        if value is not NOTHING and attribute.validator is not None:
            try:
                attribute.validator(None, attribute, value)
            except (ValueError, TypeError, ArithmeticError) as error:
                what = f"{short_text(value)} is out of range: {_validator_message(error).replace(chr(39), '')}"
                self._problem(path, what, attribute.metadata.get("doc"))
            except RobustokError as error:
                self._refused(error, path)
        return value

    def _named(self, kind: str, raw: Any, path: Path) -> Any:
        if not isinstance(raw, Mapping):
            return self._problem(path, f"expected a table of named {kind} tables, found {type(raw).__name__}")
        for name in raw:
            if wrong := wrong_name(name):  # it is part of the names of results and files
                self._problem((*path, name), f"a {kind} cannot be called {short_text(name)}: {wrong}")
        return {name: self.spec(kind, table, (*path, name)) for name, table in raw.items()}

    def _value(self, raw: Any, wanted: Any, path: Path) -> Any:
        nested = nested_config(wanted)
        if nested is not None:
            if raw is None or isinstance(raw, nested):
                return raw
            if isinstance(raw, Mapping):
                return self.config(nested, raw, path)
            self._problem(path, f"expected a table, found {short(raw)}")
            return NOTHING
        if isinstance(raw, str) and any(get_origin(part) in (list, tuple) for part in (wanted, *get_args(wanted))):
            self._problem(path, f"expected {type_name(wanted)}, found {short(raw)}")  # not a list of its letters
            return NOTHING
        try:
            return _CONVERTER.structure(raw, wanted)
        except Exception as error:  # cattrs raises many types; all of them mean "this value does not fit"
            self._problem(path, _type_message(raw, wanted, error))
            return NOTHING

    def _refused(self, error: RobustokError, path: Path, options: Container[str] = ()) -> None:
        """Records what a configuration says itself of its options, at those that it names.

        Raises:
            RobustokError: the error, if it is no mistake in the recipe.
        """
        if error.exit_code != EXIT_USAGE:
            raise error
        for each in error.problems:
            if each.where in options:
                self._problem((*path, str(each.where)), each.what, each.hint)
            else:
                self._problem(path, each.placed, each.hint)

    def _problem(self, path: Path, what: str, hint: str | None = None) -> Any:
        """Records a problem and returns None, in place of the value that could not be made."""
        self.problems.append(Problem(path, what, hint))
        return None


def _type_message(raw: Any, wanted: Any, error: Exception) -> str:
    if isinstance(error, TypeError) and str(error).startswith("expected "):
        return str(error)
    named = next((part for part in (wanted, *get_args(wanted)) if get_origin(part) is Literal), None)
    if named is not None:
        return f"{short_text(raw)} is not one of {', '.join(repr(choice) for choice in get_args(named))}"
    return f"expected {type_name(wanted)}, found {short(raw)}"


def _validator_message(error: Exception) -> str:
    return str(error.args[0]) if error.args else type(error).__name__


def nested_config(wanted: Any) -> type | None:
    """The configuration class of a field of type `Config` or `Config | None`, otherwise None."""
    if get_origin(wanted) in (list, tuple, dict):
        return None
    return next((c for c in (wanted, *get_args(wanted)) if isinstance(c, type) and attrs.has(c)), None)


def type_name(wanted: Any) -> str:
    """A type's name in messages and listings."""
    if isinstance(wanted, type) and not get_args(wanted):
        return "table" if attrs.has(wanted) else wanted.__name__
    if get_origin(wanted) is Literal:
        return " or ".join(repr(choice) for choice in get_args(wanted))
    if type(None) in get_args(wanted):
        return " or ".join("none" if part is type(None) else type_name(part) for part in get_args(wanted))
    return str(wanted).replace("typing.", "")
