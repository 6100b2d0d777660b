"""What every quantizer does unless it says otherwise: the codewords nearest to a vector."""

from __future__ import annotations

import math

import pytest
import torch

from robustok_core import Latents, Quantizer, RunError
from robustok_core.kinds.boundary import BrokenPromise


class OnALine(Quantizer):
    """Codewords 3, 1, 2, 1 on a line."""

    codebook_size, width = 4, 1
    codebook = torch.tensor([[3.0], [1.0], [2.0], [1.0]])

    def quantize(self, z):
        return Latents(codes=self.nearest(z.flatten(0, 1), 1).reshape(z.shape[:2]))

    def lookup(self, codes):
        return self.codebook[codes]


def test_codes_are_ordered_by_distance_and_codewords_at_the_same_distance_by_code():
    z = torch.tensor([[0.9], [2.0], [9.0]])
    assert OnALine().nearest(z, 4).tolist() == [[1, 3, 2, 0], [2, 0, 1, 3], [0, 2, 1, 3]]


def test_only_as_many_codes_as_asked_for_are_given():
    assert OnALine().nearest(torch.tensor([[0.9], [2.0]]), 2).tolist() == [[1, 3], [2, 0]]


def test_a_step_changes_nothing_of_a_quantizer_that_keeps_no_statistics():
    assert OnALine().after_step(None) is None


class WithVectors(OnALine):
    """The same, with its codewords."""

    def quantize(self, z):
        codes = self.nearest(z.nan_to_num().flatten(0, 1), 1).reshape(z.shape[:2])
        return Latents(codes=codes, vectors=self.lookup(codes) + 0 * z)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_encoder_that_has_diverged_is_not_called_a_mistake_of_the_quantizer(value):
    quantizer = WithVectors().eval()
    assert quantizer.quantize(torch.zeros(1, 2, 1)).codes.tolist() == [[1, 1]]
    with pytest.raises(RunError, match="^the vectors that the encoder makes are not finite"):
        WithVectors().eval().quantize(torch.full((1, 2, 1), value))


class NotFiniteVectors(WithVectors):
    """Adds what is no number to its codewords."""

    def quantize(self, z):
        found = super().quantize(z)
        return found.evolve(vectors=found.vectors * math.nan)


class NotFiniteCodebook(WithVectors):
    """Has a codeword that is no number."""

    codebook = torch.tensor([[3.0], [math.inf], [2.0], [1.0]])

    def nearest(self, z, count):
        return torch.ones(len(z), count, dtype=torch.int64)


@pytest.mark.parametrize(
    ("quantizer", "words"),
    [
        (NotFiniteVectors, "in eval mode `quantize` returns vectors that are not finite"),
        (NotFiniteCodebook, "the codebook is not finite: `lookup` gives NaN or infinity"),
    ],
)
def test_numbers_of_a_quantizer_that_are_not_finite_are_called_so_in_eval_mode(quantizer, words):
    with torch.no_grad(), pytest.raises(BrokenPromise, match=words):
        quantizer().eval().quantize(torch.zeros(1, 2, 1))


def test_codes_outside_the_codebook_are_said():
    class Beyond(OnALine):
        def quantize(self, z):
            return Latents(codes=torch.tensor([[-3, 7]]))

    with pytest.raises(BrokenPromise, match=r"`quantize` returns codes outside \[0, 4\), found -3 to 7"):
        Beyond().eval().quantize(torch.zeros(1, 2, 1))
