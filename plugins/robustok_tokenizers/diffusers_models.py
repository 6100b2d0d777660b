"""Models of the diffusers library: where they are, and how they are loaded."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from robustok_core.errors import RobustokError
from robustok_core.values.download import Download
from robustok_core.values.wording import reason_of
from robustok_toolkit.downloads import hub_file

WHERE = "tokenizer.source"
KINDS = ("AutoencoderKL", "VQModel", "AutoencoderDC", "AutoencoderRAE")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def load_model(source: str, subfolder: str) -> Any:
    """The diffusers model with its weights; without them on the meta device.

    Args:
        source: a folder, or a repository on the hub. subfolder: within it, or "".

    Raises:
        RobustokError: it is not there, damaged, or of a kind that is not supported.
    """
    diffusers = _library()
    place, options = locate(source, subfolder)
    for download in repository_files(source, subfolder)[: 1 if torch.empty(0).is_meta else None] if options else ():
        download.require(WHERE)
    try:
        table: Mapping[str, Any] = diffusers.AutoencoderKL.load_config(place, **options)
        cls = _class(diffusers, _supported(table, source), source)
        if torch.empty(0).is_meta:
            return cls.from_config(table)
        return cls.from_pretrained(place, **options, torch_dtype=torch.float32)
    except (OSError, ValueError, SafetensorError) as error:  # missing, damaged or foreign files
        raise RobustokError(f"{source} cannot be loaded: {reason_of(error)}", where=WHERE) from error


def _library() -> Any:
    try:
        import diffusers
    except ImportError as error:
        hint = 'pip install "robustok[diffusers]"'
        raise RobustokError("diffusers_vae needs the package diffusers", where="tokenizer.use", hint=hint) from error
    return diffusers


def _class(diffusers: Any, kind: str, source: str) -> Any:
    if kind == "AutoencoderRAE" and importlib.util.find_spec("transformers") is None:
        hint = "pip install transformers"
        raise RobustokError(f"{source} has an encoder of the package transformers", where=WHERE, hint=hint)
    if not hasattr(diffusers, kind):
        what = f'{source} holds "{kind}", which diffusers {diffusers.__version__} does not have'
        raise RobustokError(what, where=WHERE, hint="pip install --upgrade diffusers")
    return getattr(diffusers, kind)


def _supported(table: Mapping[str, Any], source: str) -> str:
    """The name of the model's class, from its config.json."""
    kind = str(table.get("_class_name"))
    if kind not in KINDS:
        what = f'{source} holds "{kind}"; supported: {", ".join(KINDS)}'
        raise RobustokError(what, where=WHERE)
    if table.get("norm_type", "group") != "group":
        what = f'{source} has norm_type = "{table["norm_type"]}": its decoder reads codewords at every level'
        raise RobustokError(what, where=WHERE, hint='use a model with norm_type = "group"')
    return kind


def locate(source: str, subfolder: str) -> tuple[str, dict[str, Any]]:
    """The folder, or the repository and the option for its subfolder."""
    _library()
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / subfolder).is_dir():
            raise RobustokError(f"{source} has no subfolder {subfolder!r}", where=WHERE)
        return str(folder / subfolder), {}
    if not _REPOSITORY.fullmatch(source):
        raise RobustokError(f"no such folder: {source!r}", where=WHERE)
    return source, {"subfolder": subfolder or None}


def saved_files(source: str, subfolder: str) -> list[Path]:
    """The configuration and weights of a model in a folder, as far as they are there; none of a repository."""
    folder = Path(source).expanduser() / subfolder
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [file for file in found if file.suffix in (".json", ".safetensors", ".bin") and file.is_file()]


def repository_files(source: str, subfolder: str) -> list[Download]:
    """The configuration, which every build reads, and the weights."""
    prefix = f"{subfolder}/" if subfolder else ""
    weights = [f"{prefix}diffusion_pytorch_model{ending}" for ending in (".safetensors", ".bin")]
    instead = "set source to the folder of a saved model"
    named = source if not subfolder else f"{source}, {subfolder}"
    return [
        hub_file(source, [f"{prefix}config.json"], what=f"the configuration of {named}", instead=instead),
        hub_file(source, weights, what=f"the weights of {named}", instead=instead),
    ]
