"""The configuration beside published weights: config.json of Hugging Face's mixin, or the YAML of a training script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from attrs import frozen

from robustok_core.errors import RobustokError, RunError
from robustok_core.kinds.importer import Importer
from robustok_core.runs.files import read_json
from robustok_core.values.wording import reason_of

#: Names of configurations, the first that there is counts; STEM is the name of the weights without its ending.
_FILES = ("config.json", "STEM.yaml", "model.yaml", "config.yaml")
#: The tokenizer in the configuration of a whole latent diffusion model or transformer.
_FIRST_STAGE = "first_stage_config"
#: Levels of nested tables that are read.
_DEPTH = 6
_HINT = "download it again, or take it away: the importer's options can say the same"
_Value = TypeVar("_Value", bool, int, float, str)


def config_beside(weights: Path) -> list[Path]:
    """The configuration beside a weight file, if there is one."""
    files = [weights.with_name(name.replace("STEM", weights.stem)) for name in _FILES]
    return [file for file in files if file.is_file()][:1]


def existing(file: str | None) -> list[Path]:
    """A file that an option names, if it exists."""
    return [Path(file)] if file is not None and Path(file).is_file() else []


class ReadsConfig(Importer):
    """An importer that reads the configuration beside the weights, too."""

    def also_reads(self, path: Path) -> Sequence[Path]:
        """The configuration beside the weights, if there is one."""
        return config_beside(path)


@frozen(kw_only=True)
class PublishedConfig:
    """The options of a published model, whatever tables they are in; none if there is no file.

    Attributes:
        values: numbers, booleans, texts and lists by the last part of their key; the outermost counts.
        file: where they are from, or would be.
    """

    values: Mapping[str, Any]
    file: Path

    @classmethod
    def beside(cls, weights: Path) -> PublishedConfig:
        """Reads the configuration beside a weight file, if there is one; raises as `read` does."""
        found = config_beside(weights)
        return cls.read(found[0]) if found else cls(values={}, file=weights.with_name(_FILES[0]))

    @classmethod
    def read(cls, file: Path) -> PublishedConfig:
        """Reads a configuration; of that of a whole model, the part of its tokenizer.

        Raises:
            RobustokError: it is missing or damaged.
        """
        tables = list(_tables([_content(file)]))
        first_stage = next((table[_FIRST_STAGE] for table in tables if _FIRST_STAGE in table), None)
        values: dict[str, Any] = {}
        for table in tables if first_stage is None else _tables([first_stage]):
            for key, value in table.items():
                if isinstance(value, (bool, int, float, str, list)):
                    values.setdefault(str(key), value)
        return cls(values=values, file=file)

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

    def must_agree(self, sizes: Mapping[str, int | Sequence[int]]) -> None:
        """Checks sizes, numbers or lists of them, that both the configuration and the weights give.

        Raises:
            RobustokError: some differ; names all of them.
        """
        held = {key: list(size) if isinstance(size, Sequence) else size for key, size in sizes.items()}
        wrong = [
            f"{key} is {self.values[key]} here and {size} in the weights"
            for key, size in held.items()
            if type(self.values.get(key)) is type(size) and self.values[key] != size
        ]
        if wrong:
            raise RobustokError(
                f"this configuration is not that of the weights beside it: {'; '.join(wrong)}",
                where=str(self.file),
                hint="get the configuration that belongs to the weights, or take this one away",
            )


def _content(file: Path) -> Any:
    """The content of a JSON or YAML file; no code in it runs."""
    if file.suffix == ".json":
        try:
            return read_json(file)
        except RunError as error:
            raise RobustokError(error.what, where=str(file), hint=_HINT) from error
    import yaml

    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise RobustokError(f"cannot be read: {reason_of(error)}", where=str(file), hint=_HINT) from error


def _tables(level: Sequence[Any], depth: int = _DEPTH) -> Iterator[Mapping[Any, Any]]:
    """Nested tables, outer ones first."""
    tables = [content for content in level if isinstance(content, Mapping)]
    yield from tables
    if tables and depth > 1:
        yield from _tables([value for table in tables for value in table.values()], depth - 1)
