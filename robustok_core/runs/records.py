"""JSON files that robustok wrote, read as attrs classes; a damaged or foreign one gets one message."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import attrs
from cattrs.gen import make_dict_structure_fn

from robustok_core.errors import RunError
from robustok_core.runs.files import read_json
from robustok_core.values.spec import wrong_name
from robustok_core.values.strict import strict_converter
from robustok_core.values.wording import short

T = TypeVar("T")

_CONVERTER = strict_converter(detailed_validation=True)


class _InItem(Exception):
    """An item of a list does not fit; the cause says why."""


def _is_list(wanted: Any) -> bool:
    return getattr(wanted, "__origin__", None) in (list, tuple)


@_CONVERTER.register_structure_hook_factory(_is_list)
def _list_hook(wanted: Any) -> Any:
    kind, kinds = wanted.__origin__, get_args(wanted)
    any_length = kind is list or kinds[-1] is Ellipsis

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, list):  # not the letters of a string
            raise TypeError(f"expected a list, found {short(value)}")
        if not any_length and len(value) != len(kinds):
            raise ValueError(f"expected {len(kinds)} items, found {len(value)}")
        items = []
        for index, content in enumerate(value):
            try:
                items.append(_CONVERTER.structure(content, kinds[0] if any_length else kinds[index]))
            except Exception as error:
                raise _InItem(index) from error
        return kind(items)

    return structure


@_CONVERTER.register_structure_hook_factory(attrs.has)
def _object_hook(wanted: Any) -> Any:
    of_mapping = make_dict_structure_fn(wanted, _CONVERTER)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError(f"expected an object, found {short(value)}")
        return of_mapping(value, wanted)

    return structure


def file_name(_: object, attribute: attrs.Attribute[str], name: str) -> None:
    """A validator: the name of a file or folder beside or below the JSON file, which leads to no other place."""
    if wrong_name(name):
        raise ValueError(f"{attribute.name}: {short(name)} is not the name of a file")


def record_of(cls: type[T], content: Any, file: Path) -> T:
    """An instance of an attrs class from the content of a JSON file. Keys that the class does not have are ignored.

    Args:
        cls: its attributes are annotated with int, float, str, bool, Any, `list[X]`, `tuple[X, ...]`, `tuple[X, Y]`,
            `dict[str, X]`, `Mapping[str, X]`, `X | None` or further attrs classes; their validators are called.
        file: where the content is from, for the message.

    Raises:
        RunError: naming the file, the key, and what is wrong there.
    """
    try:
        return _CONVERTER.structure(content, cls)
    except Exception as error:  # cattrs raises many types; all of them mean "this content does not fit"
        key, what = _first_problem(error)
        hint = "the file is damaged, or another version of robustok wrote it"
        raise RunError(f"{key}: {what}" if key else what, where=str(file), hint=hint) from error


def read_record(cls: type[T], file: Path) -> T:
    """Reads a JSON file as `record_of` says.

    Raises:
        RunError: if the file is missing, damaged or of another shape.
    """
    return record_of(cls, read_json(file), file)


def _first_problem(error: BaseException, path: str = "") -> tuple[str, str]:
    """The keys that lead to the first problem in an error of cattrs, and what is wrong there."""
    for note in getattr(error, "__notes__", []):
        key = getattr(note, "name", getattr(note, "index", None))
        if key is not None:
            path = f"{path}.{key}" if path else str(key)
    if isinstance(error, _InItem):
        assert error.__cause__ is not None
        return _first_problem(error.__cause__, f"{path}.{error.args[0]}")
    if problems := getattr(error, "exceptions", None):
        return _first_problem(problems[0], path)
    if isinstance(error, KeyError):
        return path, "the key is missing"
    if isinstance(error, AttributeError):  # cattrs asks a dict for its items
        return path, "expected an object"
    return path, str(error.args[0]) if error.args else type(error).__name__
