"""An importer: weights of `patches` under names of somebody else's."""

from attrs import field, frozen
from robustok_core import Importer
from safetensors.torch import load_file

NAMES = {"enc.weight": "read.weight", "enc.bias": "read.bias", "dec.weight": "draw.weight", "dec.bias": "draw.bias"}
NAMES["codes"] = "quantizer.words"


@frozen(kw_only=True)
class PatchesFileConfig:
    image_size: int = field(default=32, metadata={"doc": "what the weights do not tell"})


class PatchesFile(Importer):
    """Reads and writes a safetensors file."""

    Config = PatchesFileConfig
    makes = "tokenizer"

    def __init__(self, config):
        self.config = config

    def load(self, path, registry):
        held = load_file(path)
        weights = {ours: held.pop(theirs) for theirs, ours in NAMES.items()}
        size, width = weights["quantizer.words"].shape
        quantizer = {"use": "nearest", "codebook_size": size, "width": width}
        table = {"use": "patches", "image_size": self.config.image_size, "quantizer": quantizer}
        tokenizer = registry.build("tokenizer", table)
        tokenizer.load_state_dict(weights)
        return table, tokenizer, dict.fromkeys(held, "dropped: not known")

    def export(self, component):
        weights = component.state_dict()
        return {theirs: weights[ours] for theirs, ours in NAMES.items()}
