"""A post-trainer: trains only the last layer of the decoder, on latents from the generator."""

import torch
from attrs import frozen
from robustok_core import Guidance, Keep, PostTrainer


@frozen(kw_only=True)
class LastPartConfig:
    """No options."""


class LastPart(PostTrainer):
    """The generator retains a share sigma of a real image's latents; the decoder learns to reconstruct the image."""

    Config = LastPartConfig

    def __init__(self, config):
        self.config = config

    @torch.no_grad()
    def pair(self, tokenizer, generator, real, *, draws, sigma):
        keep = Keep(latents=real.latents, sigma=sigma)
        return generator.sample(real.labels, draws, guidance=Guidance(), keep=keep)

    def trained(self, tokenizer):
        return [tokenizer.decoder[-1]]
