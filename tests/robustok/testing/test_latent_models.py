"""Generators that break a promise are caught."""

from __future__ import annotations

import pytest
import torch

from breaches import caught
from robustok_core import Latents
from robustok_generators.maskgit import MaskGIT


class Forgetful(MaskGIT):
    """Keeps nothing of a real image."""

    def sample(self, labels, draws, *, guidance, keep=None, sampling=None):
        return super().sample(labels, draws, guidance=guidance, sampling=sampling)


class GlobalDraws(MaskGIT):
    """Draws from torch's global generator."""

    def sample(self, labels, draws, *, guidance, keep=None, sampling=None):
        return Latents(codes=torch.randint(self.space.codebook_size, (len(labels), self.space.num_tokens)))


class ByPlaceInBatch(MaskGIT):
    """Gives each place in the batch its own sample."""

    def sample(self, labels, draws, *, guidance, keep=None, sampling=None):
        rows = torch.arange(len(labels)) % self.space.codebook_size
        return Latents(codes=rows[:, None].expand(-1, self.space.num_tokens))


class OutOfBook(MaskGIT):
    """Draws the mask's code."""

    def sample(self, labels, draws, *, guidance, keep=None, sampling=None):
        return Latents(codes=torch.full((len(labels), self.space.num_tokens), self.mask_code))


class Misnamed(MaskGIT):
    """Leaves a parameter undecayed that there is not."""

    not_decayed = ("position",)


@pytest.mark.parametrize(
    ("generator", "words"),
    [
        (Forgetful, "with sigma = 1 all codes of the real image must be retained"),
        (GlobalDraws, "the same draws give different samples"),
        (ByPlaceInBatch, "a sample depends on the other samples of its batch"),
        (OutOfBook, "`sample` returns codes outside [0, 32)"),
        (Misnamed, "`not_decayed` names ['position']"),
    ],
)
def test_a_generator_that_breaks_a_promise_is_caught(generator, words):
    caught("generator", generator, words, {"width": 16, "depth": 1, "num_heads": 2})
