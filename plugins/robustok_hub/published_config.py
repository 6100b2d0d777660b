"""The configuration that Hugging Face's mixin writes beside published weights: config.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from attrs import frozen

from robustok_core.errors import RobustokError, RunError
from robustok_core.runs.files import read_json

_FILE = "config.json"
_Value = TypeVar("_Value", bool, int, float, str)


def config_beside(weights: Path) -> list[Path]:
    """The configuration beside a weight file, if there is one."""
    file = weights.with_name(_FILE)
    return [file] if file.is_file() else []


@frozen(kw_only=True)
class PublishedConfig:
    """The options of a published model, whatever tables they are in; none if there is no file.

    Attributes:
        values: numbers, booleans and texts by the last part of their key; the outermost counts.
        file: where they are from.
    """

    values: Mapping[str, Any]
    file: Path

    @classmethod
    def beside(cls, weights: Path) -> PublishedConfig:
        """Reads the configuration beside a weight file.

        Raises:
            RobustokError: it is damaged.
        """
        values: dict[str, Any] = {}
        for file in config_beside(weights):
            try:
                content = read_json(file)
            except RunError as error:
                hint = "download it again, or take it away: the importer's options can say the same"
                raise RobustokError(error.what, where=str(file), hint=hint) from error
            for key, value in _leaves(content):
                values.setdefault(key, value)
        return cls(values=values, file=weights.with_name(_FILE))

    def get(self, key: str, kind: type[_Value]) -> _Value | None:
        """The option's value, or None if it is not given; an integer may stand for a float.

        Raises:
            RobustokError: it is of another type.
        """
        value = self.values.get(key)
        if value is None:
            return None
        if kind is float and type(value) is int:
            return kind(value)
        if type(value) is not kind:
            raise RobustokError(f"{key} must be {kind.__name__}, found {value!r}", where=str(self.file))
        return value

    def must_agree(self, sizes: Mapping[str, int]) -> None:
        """Checks sizes that both the configuration and the weights give.

        Raises:
            RobustokError: they differ.
        """
        wrong = [
            f"{key} is {self.values[key]} here and {size} in the weights"
            for key, size in sizes.items()
            if isinstance(self.values.get(key), int) and self.values[key] != size
        ]
        if wrong:
            raise RobustokError(
                f"this configuration is not that of the weights beside it: {'; '.join(wrong)}",
                where=str(self.file),
                hint="get the configuration that belongs to the weights, or take this one away",
            )


def _leaves(content: Any, depth: int = 5) -> Iterator[tuple[str, Any]]:
    """Keys and values of nested tables, outer ones first."""
    if not isinstance(content, Mapping) or depth == 0:
        return
    yield from ((str(key), value) for key, value in content.items() if isinstance(value, (bool, int, float, str)))
    for value in content.values():
        yield from _leaves(value, depth - 1)
