"""timm's vision transformers with published weights, weights from a file, or random weights."""

from __future__ import annotations

from typing import Any

import torch

from robustok_core.errors import RobustokError
from robustok_core.values.download import Download, local_file
from robustok_core.values.draws import seeded
from robustok_core.values.wording import reason_of
from robustok_toolkit.downloads import hub_file

WEIGHTS_DOC = '"pretrained" (downloaded once), a local file with these weights, or "random" (for tests)'
_HINT = 'set weights = "FILE" to a local copy of the weights'
_SAFE, _PICKLED = "model.safetensors", "pytorch_model.bin"


def timm_network(architecture: str, weights: str, image_size: int | None, where: str, **options: Any) -> Any:
    """A timm network without its classifier; on the meta device, weights are never loaded.

    Args:
        architecture: timm's name of the network.
        weights: "pretrained", "random", or a file.
        image_size: side, in pixels, that its position embeddings are resampled to; None for what needs no size.
        where: location for error messages.
        options: further ones of `timm.create_model`.

    Raises:
        RobustokError: the network does not exist, or its weights cannot be loaded.
    """
    import timm

    random = weights == "random" or torch.empty(0).is_meta
    options = {"num_classes": 0, "pretrained": not random, **options}
    if image_size is not None:
        options["img_size"] = image_size
    if not random:
        for download in timm_downloads(architecture, weights):
            download.require(where)
        if weights != "pretrained":
            options["pretrained_cfg_overlay"] = {"file": str(local_file(weights, hint=_HINT))}
    try:
        with seeded(architecture):
            return timm.create_model(architecture, **options)
    except Exception as error:  # the hub client and torch raise many types; all mean that the weights are unavailable
        message = f"the weights of {architecture} cannot be loaded: {reason_of(error)}"
        raise RobustokError(message, where=where, hint=_HINT) from error


def timm_downloads(architecture: str, weights: str, *, instead: str = _HINT) -> list[Download]:
    """What `timm_network` gets from the network.

    Args:
        architecture, weights: as there. instead: what to do without a network.

    Raises:
        RobustokError: if `weights` names a file that does not exist.
    """
    if weights == "random":
        return []
    if weights != "pretrained":
        local_file(weights, hint=instead)
        return []
    from timm.models import get_pretrained_cfg

    try:
        published: Any = get_pretrained_cfg(architecture)
    except Exception:  # an unknown name is reported when the network is built
        published = None
    if published is None or not published.hf_hub_id:
        return []
    name = published.hf_hub_filename or _PICKLED
    names = [_SAFE, _PICKLED] if name == _PICKLED else [name]
    return [hub_file(published.hf_hub_id, names, what=f"the weights of {published.hf_hub_id}", instead=instead)]
