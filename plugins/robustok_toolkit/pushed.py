"""What is trained in repositories of the Hugging Face hub: an artifact with a model card, config.json and recipe.

README.md        the model card
config.json      component.json with the name and version of this library
recipe.toml      the run's, if it comes from one
component.json, model.safetensors, manifest.json    the tokenizer, or the generator
tokenizer/       the same three files of a generator's tokenizer
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Literal

import torch

from robustok_core import __version__
from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import Registry, given_registry
from robustok_core.runs.components import COMPONENT_FILE, read_artifact, sketch_component
from robustok_core.runs.files import new_folder, read_json, write_json
from robustok_core.runs.folder import find_artifact, is_artifact
from robustok_core.runs.history import RECIPE_FILE
from robustok_core.runs.manifest import MANIFEST
from robustok_core.runs.old_code import note_old_code
from robustok_core.runs.run_record import is_run
from robustok_core.values.wording import reason_of
from robustok_toolkit.arguments import folder_or_file
from robustok_toolkit.model_card import CardFacts, model_card
from robustok_toolkit.trained import TOKENIZER_FOLDER, artifact_of
from robustok_toolkit.trained_generator import TrainedGenerator, load_generator
from robustok_toolkit.trained_tokenizer import TrainedTokenizer, load_tokenizer

#: The hub counts downloads of repositories by this file.
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
#: What only some uploads write: an earlier one's goes, as it belongs to other weights. A user's own files stay.
STALE_FILES = (RECIPE_FILE, f"{TOKENIZER_FOLDER}/*")
#: What a repository can hold.
Kind = Literal["tokenizer", "generator"]


def write_repository(
    run: Path, folder: Path, *, kind: Kind, repository: str, licence: str | None, registry: Registry
) -> None:
    """Writes what a repository of the hub holds to a new folder.

    Args:
        run: the folder of a run, whose newest component of this kind is taken, or of the component.
        folder: the new one.
        kind: of the component; a generator comes with the tokenizer that decodes what it samples.
        repository: "OWNER/NAME". licence: of the weights, as the hub calls it.
        registry: builds the component.

    Raises:
        RobustokError: there is no such component, or it is damaged.
    """
    artifact = find_artifact(run, kind)
    tokenizer = artifact if kind == "tokenizer" else artifact_of(run, "tokenizer")
    note_old_code(registry, artifact)
    record: dict[str, Any] = read_json(artifact / COMPONENT_FILE)
    facts = CardFacts(
        repository=repository,
        record=record,
        component=sketch_component(registry, artifact),
        tokenizer=sketch_component(registry, tokenizer),
        run=_run_of(run, artifact, kind),
        licence=licence,
    )
    card = model_card(facts)
    with new_folder(folder) as aside:
        _copy(artifact, aside)
        if tokenizer != artifact:
            (aside / TOKENIZER_FOLDER).mkdir()
            _copy(tokenizer, aside / TOKENIZER_FOLDER)
        write_json(aside / CONFIG_FILE, {"library": "robustok", "version": __version__, **record})
        (aside / CARD_FILE).write_text(card, encoding="utf-8")
        if facts.run is not None:
            shutil.copyfile(facts.run / RECIPE_FILE, aside / RECIPE_FILE)


def _copy(artifact: Path, folder: Path) -> None:
    for file in sorted(artifact.iterdir()):
        if file.is_file():
            shutil.copyfile(file, folder / file.name)


def _run_of(place: Path, artifact: Path, kind: Kind) -> Path | None:
    """The run whose results and recipe are those of a component: the one named, or the one whose newest it is."""
    if is_run(place):
        return place
    run = artifact.resolve().parents[1]
    return run if is_run(run) and find_artifact(run, kind).resolve() == artifact.resolve() else None


def from_pretrained(
    place: str | os.PathLike[str],
    *,
    revision: str | None = None,
    device: str | torch.device | None = None,
    registry: Registry | None = None,
) -> TrainedTokenizer | TrainedGenerator:
    """Loads what `robustok push` wrote: a tokenizer, or a generator, whose attribute `tokenizer` is its tokenizer.

    Args:
        place: a repository on the hub, "OWNER/NAME", or a folder.
        revision: a branch, tag or commit of the repository; default: its main branch.
        device: the device that it runs on; default: the GPU if there is one.
        registry: the plugins to use; default: all installed ones.

    Raises:
        RobustokError: it cannot be had, or holds neither.
    """
    registry = given_registry(registry)
    path = folder_or_file(place, "place", 'a repository, "OWNER/NAME", or a folder')
    folder = path if path.exists() else _downloaded(str(place), revision)
    if not is_artifact(folder):
        hint = "`robustok push` writes such repositories; for files of others name an importer in load_tokenizer"
        raise RobustokError("this holds no tokenizer or generator of robustok", where=str(place), hint=hint)
    load = load_generator if read_artifact(folder).kind == "generator" else load_tokenizer
    return load(folder, device=device, registry=registry)


def _downloaded(repository: str, revision: str | None) -> Path:
    """The folder of a repository in the hub's cache, which is brought up to date if the hub answers."""
    from huggingface_hub import snapshot_download

    try:
        files = [COMPONENT_FILE, MANIFEST, "*.safetensors"]
        wanted = [*files, *(f"{TOKENIZER_FOLDER}/{file}" for file in files)]
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
    except Exception as error:  # the hub's client raises many types
        what = f"there is no such folder, and it cannot be had from the hub: {reason_of(error)}"
        raise RobustokError(what, where=repository, hint='expected "OWNER/NAME" or a folder') from error
