"""Initialises ViTs from pretrained weights: DINOv2 through timm, or a file with timm's names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.runs.weights import load_module
from robustok_core.values.download import Download, local_file
from robustok_core.values.wording import reason_of, some_names
from robustok_toolkit.timm_networks import timm_downloads
from robustok_toolkit.weight_files import read_weights

_DINOV2_SIZES = {384: "small", 768: "base", 1024: "large"}
_INSTEAD = 'set init = "random", or to a local file of these weights'
#: Weights of a ViT outside its trunk.
_IGNORED = ("head.", "fc_norm.", "mask_token")


def load_pretrained(source: str, networks: Sequence[nn.Module], *, width: int, patch_size: int) -> None:
    """Loads the trunk of a ViT into each network; other parameters keep their values.

    Args:
        source: "dinov2", or a file with timm's names.
        networks: modules with `pos_embed`, `cls_token`, `blocks`, `norm` and possibly `patch_embed`.
        width: numbers per token.
        patch_size: side of the networks' patches; kernels and positions are resampled to fit.

    Raises:
        RobustokError: the weights cannot be fetched or read, or do not fit.
    """
    weights = _dinov2(width) if source == "dinov2" else read_weights(Path(source).expanduser()).weights
    weights = {name: value for name, value in weights.items() if not name.startswith(_IGNORED)}
    for network in networks:
        _load_trunk(network, _fitted(weights, network, patch_size), source)


def pretrained_downloads(source: str, width: int) -> list[Download]:
    """What `load_pretrained` gets from the network; for the arguments see there. "random" gets nothing.

    Raises:
        RobustokError: there is no such network, or no such file.
    """
    if source == "dinov2":
        return timm_downloads(_dinov2_name(width), "pretrained", instead=_INSTEAD)
    if source != "random":
        local_file(source, hint=_INSTEAD)
    return []


def _dinov2_name(width: int) -> str:
    if width not in _DINOV2_SIZES:
        known = ", ".join(f"{size} ({name})" for size, name in _DINOV2_SIZES.items())
        raise RobustokError(f'init = "dinov2" has no network of width {width}', hint=f"known widths: {known}")
    return f"vit_{_DINOV2_SIZES[width]}_patch14_dinov2.lvd142m"


def _dinov2(width: int) -> dict[str, Tensor]:
    import timm

    name = _dinov2_name(width)
    for download in pretrained_downloads("dinov2", width):
        download.require("tokenizer.init")
    try:
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # timm, huggingface_hub and their HTTP clients raise many types
        message = f"the weights of {name} cannot be fetched: {reason_of(error)}"
        raise RobustokError(message, where="tokenizer.init", hint=_INSTEAD) from error


def _fitted(weights: Mapping[str, Tensor], network: nn.Module, patch_size: int) -> dict[str, Tensor]:
    """The trunk's weights under our names, resampled to the network's patches and grid."""
    from timm.layers.patch_embed import resample_patch_embed
    from timm.layers.pos_embed import resample_abs_pos_embed

    fitted = {name.replace("patch_embed.proj.", "patch_embed."): value.float() for name, value in weights.items()}
    side = math.isqrt(network.get_parameter("pos_embed").shape[1] - 1)
    if "pos_embed" in fitted:
        fitted["pos_embed"] = resample_abs_pos_embed(fitted["pos_embed"], [side, side])
    kernel = fitted.get("patch_embed.weight")
    if kernel is not None and kernel.shape[-1] != patch_size:
        fitted["patch_embed.weight"] = resample_patch_embed(kernel, [patch_size, patch_size])
    if not hasattr(network, "patch_embed"):
        fitted = {name: value for name, value in fitted.items() if not name.startswith("patch_embed.")}
    return fitted


@torch.no_grad()
def _load_trunk(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    current = network.state_dict()
    trunk = {
        name for name in current if name.startswith(("blocks.", "norm.", "patch_embed.", "cls_token", "pos_embed"))
    }
    wrong = [f"it lacks {name}" for name in sorted(trunk - weights.keys())]
    wrong += [f"it also has {name}" for name in sorted(weights.keys() - trunk)]
    wrong += [
        f"its {name} has shape {tuple(weights[name].shape)} instead of {tuple(current[name].shape)}"
        for name in sorted(trunk & weights.keys())
        if weights[name].shape != current[name].shape
    ]
    if wrong:
        what = f"these weights do not fit the ViT: {some_names(wrong)}"
        raise RobustokError(what, where=source, hint="check width and depth")
    load_module(network, {**current, **weights}, source)
