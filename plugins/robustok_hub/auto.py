"""The importer that chooses another one by the names of a file's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.kinds.importer import Importer
from robustok_core.runs.left_out import with_options_left_out
from robustok_core.values.wording import short_name, some_names
from robustok_hub.known_files import NAMES, likely_importers
from robustok_hub.published_config import config_beside
from robustok_toolkit.published_files import read_published_files
from robustok_toolkit.weight_files import read_weights

#: Our table of known files.
OURS = Path(__file__).with_name("published.toml")
#: The prefix of a tokenizer's weights in the checkpoint of a whole latent diffusion model.
_FIRST_STAGE = "first_stage_model."
_LIST = "`robustok plugins importer` lists all"


@frozen(kw_only=True)
class AutoConfig:
    """Options of `auto`."""

    options: dict[str, Any] = field(factory=dict, metadata={"doc": "options of the importer that it chooses"})


class Auto(Importer):
    """Reads a file with the importer whose files have weights of such names."""

    Config = AutoConfig
    makes = None

    def __init__(self, config: AutoConfig) -> None:
        self.config = config
        self._chosen: Importer | None = None

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        name = self.chosen = importer_of(path, registry)
        spec = registry.spec("importer", {"use": name, **self.config.options})
        self._chosen = importer = spec.build()
        table, component, report = importer.load(path, registry)
        return table, component, with_options_left_out({"importer": name, **report}, spec.config, table)

    def also_reads(self, path: Path) -> Sequence[Path]:
        """The configuration beside the file, if there is one: whichever importer is chosen may read it."""
        return config_beside(path)

    def opponents(self, path: Path) -> Mapping[str, Tensor]:
        return {} if self._chosen is None else self._chosen.opponents(path)


def importer_of(path: Path, registry: Builder) -> str:
    """The importer that reads a file; if the names of its weights fit several, the one of a known file of its name.

    Raises:
        RobustokError: the file is damaged, or none or several read weights of these names.
    """
    classes = registry.classes("importer").items()
    known = [*NAMES, *((name, kind.recognised_by) for name, kind in classes if kind.recognised_by)]
    weights = {name.removeprefix(_FIRST_STAGE) for name in read_weights(path).weights}
    likely = likely_importers(weights, known=known)
    if not likely:
        named = some_names([short_name(name) for name in sorted(weights)], most=5)
        what = f"no importer is known by the names of these {len(weights):,} weights: {named}"
        raise RobustokError(what, where=str(path), hint=f"name the importer; {_LIST}")
    if len(likely) > 1:
        listed = {file.importer for file in read_published_files(OURS) if file.name == path.name}
        likely = [name for name in likely if name in listed] or likely
    if len(likely) > 1:
        what = f"the names of these weights fit several importers: {', '.join(likely)}"
        raise RobustokError(what, where=str(path), hint=f"name the right one instead of auto; {_LIST}")
    return likely[0]
