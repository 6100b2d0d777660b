"""timm's vision transformers with published weights, weights from a file, or random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from robustok_core.errors import RobustokError
from robustok_core.values.draws import seeded
from robustok_toolkit.hub import require_hub

WEIGHTS_DOC = '"pretrained" (downloaded once), a local file with these weights, or "random" (for tests)'
_HINT = 'set weights = "FILE" to a local copy of the weights'


def timm_network(architecture: str, weights: str, image_size: int, where: str) -> Any:
    """A timm network without its classifier; on the meta device, weights are never loaded.

    Args:
        architecture: timm's name of the network.
        weights: "pretrained", "random", or a file.
        image_size: side, in pixels, that its position embeddings are resampled to.
        where: location for error messages.

    Raises:
        RobustokError: the network does not exist, or its weights cannot be loaded.
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
    except Exception as error:  # the hub client and torch raise many types; all mean that the weights are unavailable
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        message = f"the weights of {architecture} cannot be loaded: {reason}"
        raise RobustokError(message, where=where, hint=_HINT) from error


def _existing(weights: str, where: str) -> str:
    file = Path(weights).expanduser()
    if not file.is_file():
        raise RobustokError(f"there is no file {weights!r}", where=where, hint=_HINT)
    return str(file)
