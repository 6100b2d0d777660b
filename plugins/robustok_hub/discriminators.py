"""The discriminators in files of published tokenizers, as opponents of the loss `adversarial`.

| network | files | options of `adversarial` |
|---|---|---|
| PatchGAN with batch normalisation | LlamaGen, GEAR, taming-transformers, VQGAN-LC, IBQ, Open-MAGVIT2, VA-VAE | \
    patch = { norm = "batch" } |
| heads on DINO's features | RobusTok, XQGAN, MAETok | heads = {} |

They stand under "discriminator" beside the model, or among its weights as `loss.discriminator.*` or
`discriminator.*`. Of weights that have running averages, the discriminator's own weights are taken: it was trained
against them, not against the averages. Its optimiser's state is read too, from "optimizer_disc", "opt_disc" or
Lightning's second optimiser, which numbers parameters in the order of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustok_core.kinds.importer import Importer
from robustok_core.runs.weights import part, prefixed
from robustok_hub.published_names import NameRules, to_ours
from robustok_toolkit.weight_files import read_content, without_wrappers

#: The name of the loss whose opponent a published discriminator becomes.
LOSS = "adversarial"
#: Keys of the state of its optimiser beside the model.
_OPTIMIZERS = ("optimizer_disc", "opt_disc")
#: Where a state dict has a discriminator among its weights.
_PREFIXES = ("loss.discriminator.", "discriminator.")
#: Keys of state dicts in training scripts' files.
_MODELS = ("vq", "model", "state_dict", "module")
#: A weight that tells the network, and the rules from published names to ours.
_NETWORKS: Mapping[str, NameRules] = {
    "main.0.weight": [("main.", "network.levels.")],
    "heads.0.0.0.weight_orig": [("heads.", "network.heads.")],
}
#: Ends of names under torch's first spectral_norm, and under its parametrization.
_SPECTRAL = {
    "weight_orig": "parametrizations.weight.original",
    "weight_u": "parametrizations.weight.0._u",
    "weight_v": "parametrizations.weight.0._v",
}
#: Ends of names that are no parameters.
_BUFFERS = ("weight_u", "weight_v", "running_mean", "running_var", "num_batches_tracked")
#: Statistics of LeCAM, which published files lack: it starts anew.
_LECAM = ("lecam.real_mean", "lecam.fake_mean")


class TokenizerImporter(Importer):
    """An importer of tokenizers that reads their discriminators too."""

    makes = "tokenizer"

    def opponents(self, path: Path) -> Mapping[str, Tensor]:
        """The opponent of the loss `adversarial`; empty if the file has no discriminator that `adversarial` knows."""
        content = read_content(path)
        state, optimizer = _find(content, str(path))
        rules = next((rules for name, rules in _NETWORKS.items() if name in state), None)
        if rules is None:
            return {}
        names = {name: _ours(name, rules) for name in state}
        module = {names[name]: value for name, value in state.items()} | dict.fromkeys(_LECAM, torch.zeros(()))
        trained = [f"opponent.{ours}" for name, ours in names.items() if not name.endswith(_BUFFERS)]
        return {
            **prefixed(module, f"module/{LOSS}/"),
            **prefixed(_optimizer_tensors(optimizer, trained), f"optimizer/{LOSS}/"),
        }


def _find(content: Mapping[Any, Any], where: str) -> tuple[dict[str, Tensor], Any]:
    """The weights of a file's discriminator by their names, empty if there is none; and its optimiser's state."""
    beside = content.get("discriminator")
    if isinstance(beside, Mapping):
        return without_wrappers(beside, where), next((content[key] for key in _OPTIMIZERS if key in content), None)
    model = next((content[key] for key in _MODELS if isinstance(content.get(key), Mapping)), content)
    weights = without_wrappers(model, where)
    optimizers = content.get("optimizer_states")
    second = optimizers[1] if isinstance(optimizers, Sequence) and len(optimizers) == 2 else None
    return next((found for prefix in _PREFIXES if (found := part(weights, prefix))), {}), second


def _ours(name: str, rules: NameRules) -> str:
    start, dot, end = to_ours(name, rules).rpartition(".")
    return start + dot + _SPECTRAL.get(end, end)


def _optimizer_tensors(state: Any, names: Sequence[str]) -> dict[str, Tensor]:
    """An Adam's state as KEY/NAME; empty unless it has one entry of the same keys for each name, in their order."""
    entries = state.get("state") if isinstance(state, Mapping) else None
    if not isinstance(entries, Mapping) or sorted(entries, key=str) != sorted(range(len(names)), key=str):
        return {}
    return {
        f"{key}/{name}": torch.as_tensor(value)
        for index, name in enumerate(names)
        for key, value in entries[index].items()
    }
