"""Perturbations, losses, data sets and other parts of a training that break a promise are caught."""

from __future__ import annotations

import attrs
import pytest
import torch

from breaches import caught
from robustok.testing import check_component
from robustok_core import Images, Result
from robustok_data.fashion_mnist import FashionMNIST
from robustok_losses.reconstruction import PixelReconstruction
from robustok_metrics.fashion_classifier import FashionClassifier
from robustok_metrics.inception_score import InceptionScore
from robustok_perturbations.gaussian import Gaussian
from robustok_perturbations.top_delta import TopDelta
from robustok_post_training.decoder import Decoder
from robustok_stages.tokenizer.train_tokenizer import TrainTokenizer

TRAINING = {"epochs": 1, "batch_size": 16}
WITH_FEATURES = {"features": {"use": "fashion_classifier"}}


class Anew(TopDelta):
    """Draws from torch's global generator."""

    def perturb(self, latents, quantizer, *, draws, progress):
        mask = torch.rand(latents.vectors.shape[:2]) < 0.5
        return latents.evolve(vectors=latents.vectors.masked_fill(mask[..., None], 0.0)), mask


class OfTheBatch(TopDelta):
    """Looks at the other images."""

    def perturb(self, latents, quantizer, *, draws, progress):
        mask = torch.ones(latents.vectors.shape[:2], dtype=torch.bool)
        return latents.evolve(vectors=latents.vectors - latents.vectors.mean(dim=0)), mask


class InPlace(TopDelta):
    """Writes into what it was given."""

    def perturb(self, latents, quantizer, *, draws, progress):
        mask = draws.uniform(latents.vectors.shape[1]) < 0.5
        latents.vectors.data[mask] = 0.0
        return latents, mask


class Cut(TopDelta):
    """Stops the gradient."""

    def perturb(self, latents, quantizer, *, draws, progress):
        return latents.detach().evolve(vectors=latents.vectors.detach() + 0.0 * latents.vectors), torch.zeros(
            latents.vectors.shape[:2], dtype=torch.bool
        )


class Unmasked(TopDelta):
    """Says that it changed nothing."""

    def perturb(self, latents, quantizer, *, draws, progress):
        found, mask = super().perturb(latents, quantizer, draws=draws, progress=progress)
        return found, torch.zeros_like(mask)


class MaskOfNumbers(TopDelta):
    """Gives the mask as numbers."""

    def perturb(self, latents, quantizer, *, draws, progress):
        found, mask = super().perturb(latents, quantizer, draws=draws, progress=progress)
        return found, mask.float()


class CodesOnly(TopDelta):
    """Changes codes, and leaves the vectors that the decoder reads."""

    def perturb(self, latents, quantizer, *, draws, progress):
        found, mask = super().perturb(latents, quantizer, draws=draws, progress=progress)
        return found.evolve(vectors=latents.vectors), mask


class CodesOnlyLater(CodesOnly):
    """Changes codes alone once half of the training is over, when a run no longer looks at values."""

    def perturb(self, latents, quantizer, *, draws, progress):
        if progress > 0.5:
            return super().perturb(latents, quantizer, draws=draws, progress=progress)
        return latents, torch.zeros(latents.codes.shape, dtype=torch.bool)


class VectorsOnly(TopDelta):
    """Puts in the vectors of other codes, and leaves the codes."""

    def perturb(self, latents, quantizer, *, draws, progress):
        found, mask = super().perturb(latents, quantizer, draws=draws, progress=progress)
        return found.evolve(codes=latents.codes), mask


class Everywhere(TopDelta):
    """Needs codes, and accepts spaces without."""

    def check(self, space, batch_size=None):
        pass


class OnlyVectors(Gaussian):
    """Needs vectors without codes, and accepts spaces with codes."""

    def check(self, space, batch_size=None):
        pass


class InDoubles(TopDelta):
    """Computes with 64 bits."""

    def perturb(self, latents, quantizer, *, draws, progress):
        found, mask = super().perturb(latents, quantizer, draws=draws, progress=progress)
        return found.evolve(vectors=found.vectors.double()), mask


def test_a_perturbation_of_vectors_alone_keeps_its_promises():
    """Dropped tokens keep their codes: no other code belongs to a vector of zeros."""

    class Drop(TopDelta):
        def perturb(self, latents, quantizer, *, draws, progress):
            dropped = draws.uniform(latents.vectors.shape[1]) < 0.5
            return latents.evolve(vectors=latents.vectors.masked_fill(dropped[..., None], 0.0)), dropped

    check_component("perturbation", Drop, {"delta": 4})


def test_a_perturbation_that_fails_in_a_space_that_it_accepts_is_told_what_to_refuse():
    words = "`perturb` fails in a continuous space, which `check` accepts (ValueError: top_delta needs the quantizer"
    caught("perturbation", Everywhere, words, {"delta": 4})
    caught("perturbation", Everywhere, "refuse spaces without codes in `check`", {"delta": 4})
    caught("perturbation", OnlyVectors, "refuse spaces with codes in `check`")


@pytest.mark.parametrize(
    ("perturbation", "words"),
    [
        (CodesOnly, "`perturb` changes codes, but the vectors of these tokens are not those of the new codes"),
        (CodesOnlyLater, "`perturb` changes codes, but the vectors of these tokens are not those of the new codes"),
        (VectorsOnly, "`perturb` puts in the vectors of other codes, but keeps the codes"),
        (InDoubles, "vectors of `perturb` are of torch.float64"),
        (Anew, "take random numbers only from `draws`"),
        (OfTheBatch, "the perturbed latents of an image depend on the other images of its batch"),
        (InPlace, "`perturb` modifies its input latents"),
        (Cut, "no gradient flows to the clean vectors"),
        (Unmasked, "tokens outside the mask have changed"),
        (
            MaskOfNumbers,
            "mask of `perturb` must be a tensor (8, 16) of torch.bool, found Tensor (8, 16) of torch.float32",
        ),
    ],
)
def test_a_perturbation_that_breaks_a_promise_is_caught(perturbation, words):
    caught("perturbation", perturbation, words, {"beta": 0.5, "delta": 4})


class Vector(PixelReconstruction):
    """Gives a number an image."""

    def forward(self, step):
        return (step.images - step.batch.images).square().mean(dim=(1, 2, 3))


class NoGradient(PixelReconstruction):
    """Gives a constant."""

    def forward(self, step):
        return super().forward(step).detach()


class NamedBadly(PixelReconstruction):
    """Logs a number without a name."""

    def logs(self):
        return {"": 1.0}


class Bright(FashionMNIST):
    """Gives 8-bit levels as they are."""

    def __init__(self, config):
        super().__init__(config)
        self.train = BrightImages(self.train)


class BrightImages(Images):
    """Images in [0, 255]."""

    def __init__(self, images):
        self.held = images

    @property
    def labels(self):
        return self.held.labels

    @property
    def fingerprint(self):
        return self.held.fingerprint

    def load(self, indices, draws=None):
        batch = self.held.load(indices, draws)
        return attrs.evolve(batch, images=127.5 * (batch.images + 1.0))


class Thawed(FashionClassifier):
    """Can be trained."""

    def __init__(self, config):
        super().__init__(config)
        self.extra = torch.nn.Parameter(torch.zeros(()))


class OneName(TrainTokenizer):
    """Names an artifact without a tuple."""

    needs = "tokenizer"


class Elsewhere(Decoder):
    """Trains what is not the tokenizer's."""

    def trained(self, tokenizer):
        return [torch.nn.Linear(2, 2)]


class Infinite(InceptionScore):
    """Gives no finite score."""

    def compute(self, samples, reference):
        return {"inception_score": Result(float("inf"))}


@pytest.mark.parametrize(
    ("kind", "component", "config", "words"),
    [
        ("loss", Vector, {}, "`forward` must be a floating point tensor of shape (), found Tensor (8,)"),
        ("loss", NoGradient, {}, "pass no gradient to the images that it compares"),
        ("loss", NamedBadly, {}, "values of `logs` has the name ''; a name is text that is not empty and has no slash"),
        ("dataset", Bright, {}, "images of `load` must lie in [-1, 1]"),
        ("features", Thawed, {}, "a frozen network must not have parameters that require gradients, found extra"),
        ("stage", OneName, TRAINING, "`needs` must be a tuple of names"),
        ("post_trainer", Elsewhere, {}, "`trained` returns parameters that are not the tokenizer's"),
        ("sample_metric", Infinite, WITH_FEATURES, "the result 'inception_score' is not finite"),
    ],
)
def test_other_breaches_are_caught(kind, component, config, words):
    caught(kind, component, words, config)
