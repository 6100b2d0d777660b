"""A generator that samples each token independently."""

import torch
import torch.nn.functional as F
from attrs import frozen
from robustok_core import Generator, Latents


@frozen(kw_only=True)
class ByPlaceConfig:
    """No options."""


class ByPlace(Generator):
    """Samples each code with its frequency at that position in images of the class."""

    Config = ByPlaceConfig

    def __init__(self, config, space, num_classes):
        super().__init__()
        self.space, self.num_classes = space, num_classes
        self.logits = torch.nn.Parameter(torch.zeros(num_classes, space.num_tokens, space.codebook_size))

    def loss(self, latents, labels, *, draws, progress):
        return {"cross_entropy": F.cross_entropy(self.logits[labels].flatten(0, 1), latents.codes.flatten())}

    @torch.no_grad()
    def sample(self, labels, draws, *, guidance, keep=None, sampling=None):
        likely = self.logits[labels].softmax(dim=-1).cumsum(dim=-1)[..., :-1]  # (B, N, K - 1)
        codes = (likely < draws.uniform(self.space.num_tokens)[..., None]).sum(dim=-1)
        return Latents(codes=codes if keep is None else keep.over(codes, draws))  # for post-training
