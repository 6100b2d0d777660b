"""A post-trainer: only the last part of the decoder learns, from the generator's own latents."""

import torch
from attrs import frozen
from robustok_core import Guidance, Keep, PostTrainer


@frozen(kw_only=True)
class LastPartConfig:
    """No options."""


class LastPart(PostTrainer):
    """A generator keeps a share sigma of each real image; the decoder is to draw that image all the same."""

    Config = LastPartConfig

    def __init__(self, config):
        self.config = config

    @torch.no_grad()
    def pair(self, tokenizer, generator, real, *, draws, sigma):
        keep = Keep(latents=real.latents, sigma=sigma)
        return generator.sample(real.labels, draws, guidance=Guidance(), keep=keep)

    def trained(self, tokenizer):
        return [tokenizer.decoder[-1]]
