"""A stage: how many codes the first validation images use."""

import torch
from attrs import field, frozen, validators
from robustok_core import Result, Stage


@frozen(kw_only=True)
class CountCodesConfig:
    num_images: int = field(default=16, validator=validators.ge(1), metadata={"doc": "images that are encoded"})


class CountCodes(Stage):
    """Reads the artifact "tokenizer" that a stage before it made."""

    Config = CountCodesConfig
    uses, needs = ("data",), ("tokenizer",)

    def __init__(self, config):
        self.config = config

    @torch.no_grad()
    def run(self, context):
        images = context.dataset().validation.load(range(self.config.num_images)).images
        codes = context.load("tokenizer").encode(images.to(context.device)).codes
        return {"codes_in_use": Result(len(codes.unique()), num_images=len(images))}
