"""An importer of published weights for `patches`, with other key names."""

from attrs import field, frozen
from robustok_core import Importer
from robustok_toolkit.weight_files import read_weights

NAMES = {"enc.weight": "to_vectors.weight", "enc.bias": "to_vectors.bias", "codes": "quantizer.words"}
NAMES |= {"dec.weight": "to_pixels.weight", "dec.bias": "to_pixels.bias"}


@frozen(kw_only=True)
class PatchesFileConfig:
    image_size: int = field(default=32, metadata={"doc": "height and width; the weights do not record them"})


class PatchesFile(Importer):
    """Reads and writes a safetensors or torch file."""

    Config = PatchesFileConfig
    makes = "tokenizer"

    def __init__(self, config):
        self.config = config

    def load(self, path, registry):
        tensors = read_weights(path).weights
        weights = {ours: tensors.pop(theirs) for theirs, ours in NAMES.items()}
        size, width = weights["quantizer.words"].shape
        quantizer = {"use": "nearest", "codebook_size": size, "width": width}
        table = {"use": "patches", "image_size": self.config.image_size, "quantizer": quantizer}
        tokenizer = registry.build("tokenizer", table)
        tokenizer.load_state_dict(weights)
        return table, tokenizer, dict.fromkeys(tensors, "dropped: unknown key")

    def export(self, component):
        weights = component.state_dict()
        return {theirs: weights[ours] for theirs, ours in NAMES.items()}
