"""Tokenizers and quantizers that break a promise are caught."""

from __future__ import annotations

import random

import attrs
import pytest
import torch

from breaches import caught
from project import CODEBOOK_SIZE, CONV, WIDTH
from robustok.testing import check_component
from robustok_quantizers.vq import VQ
from robustok_tokenizers.conv_vq import ConvVQ

VQ_SIZE = {"codebook_size": CODEBOOK_SIZE, "width": WIDTH}


class Hidden(ConvVQ):
    """Keeps a weight that no state dict holds."""

    def __init__(self, config):
        super().__init__(config)
        self.shift = torch.randn(())

    def decode_vectors(self, vectors):
        return super().decode_vectors(vectors) + self.shift


class GlobalStart(ConvVQ):
    """Draws its weights from another generator than torch's."""

    def __init__(self, config):
        super().__init__(config)
        torch.nn.init.constant_(self.quant_conv.bias, random.random())


class NoSketch(ConvVQ):
    """Reads a weight's value while it is built."""

    def __init__(self, config):
        super().__init__(config)
        self.largest = self.quant_conv.weight.max().item()


class Together(ConvVQ):
    """Subtracts the mean over the batch."""

    def encode(self, images):
        return super().encode(images - images.mean(dim=0))


class NotStraightThrough(ConvVQ):
    """Passes no gradient on."""

    def encode(self, images):
        return super().encode(images).detach()


class WrongDecoder(ConvVQ):
    """Counts the encoder to the decoder."""

    @property
    def decoder(self):
        return torch.nn.ModuleList([self.quant_conv, self.post_quant_conv, self.pixel_decoder])


class WrongLast(ConvVQ):
    """Names a weight of the encoder."""

    @property
    def last_layer(self):
        return self.quant_conv.weight


class WrongSpace(ConvVQ):
    """Says that it has another codebook than it has."""

    def __init__(self, config):
        super().__init__(config)
        self.space = attrs.evolve(self.space, codebook_size=33)


class TogetherDecoded(ConvVQ):
    """Subtracts the mean over the batch from the images that it decodes."""

    def decode_vectors(self, vectors):
        images = super().decode_vectors(vectors)
        return images - 0.1 * images.mean(dim=0)


class DoublesDecoded(ConvVQ):
    """Decodes to images of 64 bits."""

    def decode_vectors(self, vectors):
        return super().decode_vectors(vectors).double()


class NoisyDecoded(ConvVQ):
    """Adds noise to what it decodes."""

    def decode_vectors(self, vectors):
        images = super().decode_vectors(vectors)
        return images + 0.1 * torch.randn_like(images)


class LossesInAList(ConvVQ):
    """Gives its losses without names."""

    def encode(self, images):
        found = super().encode(images)
        return found.evolve(losses=list(found.losses.values()))


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        (TogetherDecoded, "a decoded image depends on the other images of its batch"),
        (DoublesDecoded, "images of `decode` are of torch.float64 for inputs of torch.float32"),
        (NoisyDecoded, "`decode` gives a different result after"),
        (LossesInAList, "losses of `encode` must be a dict of scalars by name, found list"),
        (Hidden, "`decode` gives a different result after its state dict is loaded into another build"),
        (GlobalStart, "two builds with the same seed differ in quant_conv.bias"),
        (NoSketch, "it cannot be built on the meta device"),
        (Together, "the latents of an image depend on the other images of its batch"),
        (NotStraightThrough, "no gradient flows from the decoded images to the input images"),
        (WrongDecoder, "the latents depend on ['0.weight', '0.bias'] of `decoder`"),
        (WrongLast, "`last_layer` is not a parameter of `decoder`"),
        (WrongSpace, "its quantizer has K, D = (32, 4)"),
    ],
)
def test_a_tokenizer_that_breaks_a_promise_is_caught(tokenizer, words):
    caught("tokenizer", tokenizer, words, CONV | {"quantizer": {"use": "vq", **VQ_SIZE}})


class LossesAlways(VQ):
    """Gives losses in eval mode too."""

    def quantize(self, z):
        return super().quantize(z).evolve(losses={"commitment": z.mean()})


class FarFirst(VQ):
    """Has the farthest first."""

    def nearest(self, z, count):
        return super().nearest(z, count).flip(1)


class NoStraightThrough(VQ):
    """Passes no gradient on to what it quantizes."""

    def quantize(self, z):
        found = super().quantize(z)
        return found.evolve(vectors=self.lookup(found.codes))


class DetachedVectors(VQ):
    """Cuts the graph behind the vectors."""

    def quantize(self, z):
        found = super().quantize(z)
        return found.evolve(vectors=found.vectors.detach())


class OtherVectors(VQ):
    """Gives vectors that are not its codewords."""

    def quantize(self, z):
        found = super().quantize(z)
        return found.evolve(vectors=found.vectors * 1.5)


class ChangesWithin(VQ):
    """Updates its codebook for each micro-batch."""

    def quantize(self, z):
        found = super().quantize(z)
        if self.training:
            self.embedding.data.mul_(0.9)
        return found


class OwnRandomness(VQ):
    """Updates its codebook with random numbers that no other process has."""

    def after_step(self, draws):
        self.embedding.data.add_(torch.randn_like(self.embedding))


class Drawn(VQ):
    """Updates its codebook with the random numbers of the step, and quantizes with noise while it trains."""

    def quantize(self, z):
        return super().quantize(z + 0.1 * torch.randn_like(z) if self.training else z)

    def after_step(self, draws):
        self.embedding.data.add_(torch.randn(self.embedding.shape, generator=draws.generator()))


class RowsOfDraws(VQ):
    """Updates its codebook with the random numbers of the first image, which is another one on each process."""

    def after_step(self, draws):
        self.embedding.data.add_(draws[:1].normal(*self.embedding.shape)[0])


def test_noise_in_training_and_an_update_with_the_draws_keep_the_promise():
    check_component("quantizer", Drawn, VQ_SIZE)


def with_losses(make):
    class WithLosses(VQ):
        """Gives losses of another form."""

        def quantize(self, z):
            found = super().quantize(z)
            return found.evolve(losses=make(z)) if self.training else found

    return WithLosses


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (
            lambda z: z.mean(),
            "losses of `quantize` must be a dict of scalars by name, found Tensor () of torch.float32",
        ),
        (lambda z: [z.mean()], "losses of `quantize` must be a dict of scalars by name, found list"),
        (lambda z: None, "losses of `quantize` must be a dict of scalars by name, found NoneType"),
        (lambda z: {"commitment": z}, "the loss 'commitment' of `quantize` must be a floating point tensor of"),
        (
            lambda z: {"commitment": 1.0},
            "must be a floating point tensor of shape (), found float",
        ),
        (lambda z: {"a/b": z.mean()}, "a loss of `quantize` has the name 'a/b'; a name is text that is not empty and"),
        (lambda z: {1: z.mean()}, "a loss of `quantize` has the name 1; a name is text"),
        (
            lambda z: {"commitment": z.mean() * float("nan")},
            "the loss 'commitment' of `quantize` is nan",
        ),
    ],
)
def test_losses_that_are_no_scalars_by_name_are_caught(losses, words):
    caught("quantizer", with_losses(losses), words, VQ_SIZE)


@pytest.mark.parametrize(
    ("quantizer", "words"),
    [
        (DetachedVectors, "vectors of `quantize` pass no gradient to its input (straight-through): are they detached?"),
        (OtherVectors, "in eval mode the vectors of `quantize` are not those that `lookup` gives for its codes"),
        (ChangesWithin, "`quantize` changes the codebook; only `after_step` may"),
        (OwnRandomness, "`after_step` makes another state on each process (embedding, the codebook)"),
        (RowsOfDraws, "take random numbers from `draws.generator()`, not from torch's or the rows of `draws`"),
        (LossesAlways, "`quantize` returns losses in eval mode"),
        (FarFirst, "the codeword nearest to a codeword must be itself"),
        (NoStraightThrough, "vectors of `quantize` pass no gradient to its input (straight-through)"),
    ],
)
def test_a_quantizer_that_breaks_a_promise_is_caught(quantizer, words):
    caught("quantizer", quantizer, words, VQ_SIZE)
