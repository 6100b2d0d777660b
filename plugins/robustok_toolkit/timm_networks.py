"""Vision transformers of timm with their published weights, a file's, or random ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from robustok_core.errors import RobustokError
from robustok_core.values.draws import seeded
from robustok_toolkit.hub import require_hub

WEIGHTS_DOC = '"pretrained" (downloaded once), a local file of these weights, or "random" (for tests)'
_HINT = 'set weights = "FILE" to a local copy of the weights'


def timm_network(architecture: str, weights: str, image_size: int, where: str) -> Any:
    """A network of timm without its classifier; on the meta device always without weights.

    Args:
        architecture: timm's name of it.
        weights: "pretrained", "random", or a file.
        image_size: side in pixels that its positions are resampled to.
        where: for messages.

    Raises:
        RobustokError: there is no such network, or its weights cannot be had.
    """
    import timm

    random = weights == "random" or torch.empty(0).is_meta
    options: dict[str, Any] = {"num_classes": 0, "img_size": image_size, "pretrained": not random}
    if not random and weights != "pretrained":
        options["pretrained_cfg_overlay"] = {"file": _existing(weights, where)}
    elif not random:
        require_hub(f"timm/{architecture}", where=where, hint=_HINT)
    try:
        with seeded(architecture):
            return timm.create_model(architecture, **options)
    except Exception as error:  # the hub's client and torch raise many types; all mean that there are no weights
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        what = f"the weights of {architecture} cannot be loaded: {reason}"
        raise RobustokError(what, where=where, hint=_HINT) from error


def _existing(weights: str, where: str) -> str:
    file = Path(weights).expanduser()
    if not file.is_file():
        raise RobustokError(f"there is no file {weights!r}", where=where, hint=_HINT)
    return str(file)
