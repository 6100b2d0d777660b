"""The checks for components: every component of ours that can be built small passes, and each breach is caught."""

from __future__ import annotations

import random
import re

import attrs
import pytest
import torch

from project import recipe_of
from robustok.testing import check_component
from robustok_core import Images, Latents, LatentSpace, Perturbation, Result
from robustok_core.kinds import KINDS
from robustok_core.runs.files import write_tensors
from robustok_data.fashion_mnist import FashionMNIST
from robustok_generators.maskgit import MaskGIT
from robustok_losses.reconstruction import PixelReconstruction
from robustok_metrics.fashion_classifier import FashionClassifier
from robustok_metrics.inception_score import InceptionScore
from robustok_metrics.psnr import PSNR
from robustok_perturbations.top_delta import TopDelta
from robustok_post_training.decoder import Decoder
from robustok_quantizers.vq import VQ
from robustok_stages.tokenizer.train_tokenizer import TrainTokenizer
from robustok_tokenizers.conv_vq import ConvVQ

VIT = {"image_size": 32, "patch_size": 8, "width": 24, "depth": 1, "num_heads": 3, "num_latent_tokens": 16}
TOKENS = {"width": 16, "depth": 1, "num_heads": 2}
WITH_FEATURES = {"features": {"use": "fashion_classifier"}}
KL_VAE = {
    "use": "kl_vae",
    "image_size": 32,
    "channels": 8,
    "channel_multipliers": [1, 1],
    "num_res_blocks": 1,
    "norm_groups": 4,
    "stem_patch": 4,
    "z_channels": 8,
    "width": 4,
}
CONV_VQ = {name: value for name, value in KL_VAE.items() if name not in ("use", "width")}
#: Options with which a component is small, and what it works with.
SMALL = {
    ("dataset", "fashion_mnist"): {},
    ("features", "efficientnet_lite0"): {},
    ("features", "fashion_classifier"): {},
    ("generator", "flow_transformer"): TOKENS,
    ("generator", "llamagen_gpt"): TOKENS,
    ("generator", "maskgit"): TOKENS,
    ("generator", "rar"): TOKENS,
    ("loss", "adversarial"): {"start": 0.0, "patch": {"width": 4, "layers": 1}},
    ("loss", "reconstruction"): {},
    ("metric", "codebook_usage"): {},
    ("metric", "frechet"): WITH_FEATURES,
    ("metric", "noise_pfd"): WITH_FEATURES | {"alphas": [0.5], "levels": [0.5]},
    ("metric", "pfid"): WITH_FEATURES | {"alphas": [0.5], "deltas": [4]},
    ("metric", "psnr"): {},
    ("metric", "ssim"): {},
    ("perturbation", "gaussian"): {"beta": 0.5},
    ("perturbation", "interpolate"): {"beta": 0.5},
    ("perturbation", "none"): {},
    ("perturbation", "top_delta"): {"beta": 0.5, "delta": 4},
    ("post_trainer", "decoder"): {},
    ("quantizer", "fsq"): {"levels": [3, 3, 3]},
    ("quantizer", "lfq"): {"width": 5},
    ("quantizer", "residual_vq"): {"level_size": 8, "num_levels": 2, "width": 4},
    ("quantizer", "sim_vq"): {"codebook_size": 32, "width": 4},
    ("quantizer", "vq"): {"codebook_size": 32, "width": 4},
    ("sample_metric", "frechet"): WITH_FEATURES,
    ("sample_metric", "inception_score"): WITH_FEATURES,
    ("sample_metric", "kid"): WITH_FEATURES | {"subset_size": 32},
    ("sample_metric", "precision_recall"): WITH_FEATURES,
    ("tokenizer", "conv_vq"): CONV_VQ | {"quantizer": {"use": "vq", "codebook_size": 32, "width": 4}},
    ("tokenizer", "kl_vae"): {name: value for name, value in KL_VAE.items() if name != "use"},
    ("tokenizer", "vit_vq"): VIT | {"quantizer": {"use": "vq", "codebook_size": 32, "width": 4}},
}
PARTS = {("metric", "noise_pfd"): {"tokenizer": KL_VAE}}


@pytest.mark.parametrize(("kind", "name"), SMALL, ids=[" ".join(key) for key in SMALL])
def test_a_component_of_ours_keeps_what_its_kind_promises(kind, name, registry):
    check_component(kind, name, SMALL[kind, name], registry=registry, **PARTS.get((kind, name), {}))


TRAINING = {"epochs": 1, "batch_size": 16}
REQUIRED = dict.fromkeys(("train_tokenizer", "train_generator", "post_train"), TRAINING)
REQUIRED["compare_decoders"] = {"num_samples": 8}
REQUIRED["sample"] = {"num_samples": 8}


def test_every_stage_of_ours_names_its_tables_and_artifacts(registry):
    for name in registry.names("stage"):
        check_component("stage", name, REQUIRED.get(name), registry=registry)


def test_a_stage_is_run_in_a_recipe(registry):
    check_component("stage", "train_tokenizer", TRAINING, registry=registry, recipe=recipe_of())
    with pytest.raises(AssertionError, match="the recipe has no stage that uses it"):
        check_component("stage", "tokenize", registry=registry, recipe=recipe_of())


def test_an_importer_is_checked_with_a_published_file(registry, tmp_path):
    table = {"use": "vit_vq", **VIT, "width": 64, "num_heads": 1}
    tokenizer = registry.build("tokenizer", table | {"quantizer": {"use": "vq", "codebook_size": 32, "width": 4}})
    weights = registry.build("importer", {"use": "robustok"}).export(tokenizer)
    write_tensors(tmp_path / "main-train.safetensors", weights)
    check_component("importer", "robustok", registry=registry, file=tmp_path / "main-train.safetensors")


def test_there_is_a_check_of_every_kind():
    assert {kind for kind, _ in SMALL} == set(KINDS) - {"importer", "stage"}


# --- breaches -------------------------------------------------------------------------------------


def caught(kind: str, component: type, words: str, config=None, **parts) -> None:
    with pytest.raises(AssertionError, match=re.escape(words)):
        check_component(kind, component, config, **parts)


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


@pytest.mark.parametrize(
    ("perturbation", "words"),
    [
        (Anew, "take random numbers from `draws` alone"),
        (OfTheBatch, "depends on which others are in its batch"),
        (InPlace, "`perturb` writes into the latents that it was given"),
        (Cut, "no gradient goes on to the clean vectors"),
        (Unmasked, "tokens that the mask leaves out have changed"),
        (MaskOfNumbers, "the mask of `perturb` must be a tensor (8, 16) of torch.bool, found (8, 16) of torch.float32"),
    ],
)
def test_a_perturbation_that_breaks_a_promise_is_caught(perturbation, words):
    caught("perturbation", perturbation, words, {"beta": 0.5, "delta": 4})


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


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        (Hidden, "with its state dict in another one, `decode` differs"),
        (GlobalStart, "two builds with the same seed differ in quant_conv.bias"),
        (NoSketch, "it cannot be built on the meta device"),
        (Together, "the latents of an image depend on the other images of its batch"),
        (NotStraightThrough, "no gradient of the pictures reaches the images"),
        (WrongDecoder, "the latents depend on ['0.weight', '0.bias'] of `decoder`"),
        (WrongLast, "`last_layer` is no parameter of `decoder`"),
        (WrongSpace, "its quantizer has K, D = (32, 4)"),
    ],
)
def test_a_tokenizer_that_breaks_a_promise_is_caught(tokenizer, words):
    caught("tokenizer", tokenizer, words, SMALL["tokenizer", "conv_vq"])


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


@pytest.mark.parametrize(
    ("quantizer", "words"),
    [
        (LossesAlways, "`quantize` gives losses in eval mode"),
        (FarFirst, "the codeword nearest to a codeword must be itself"),
        (NoStraightThrough, "no gradient of the vectors reaches what was quantized"),
    ],
)
def test_a_quantizer_that_breaks_a_promise_is_caught(quantizer, words):
    caught("quantizer", quantizer, words, SMALL["quantizer", "vq"])


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
        (Forgetful, "with sigma = 1 all codes of the real image must be kept"),
        (GlobalDraws, "the same draws give other samples"),
        (ByPlaceInBatch, "a sample depends on which others are in its batch"),
        (OutOfBook, "`sample` makes codes outside of [0, 32)"),
        (Misnamed, "`not_decayed` names ['position']"),
    ],
)
def test_a_generator_that_breaks_a_promise_is_caught(generator, words):
    caught("generator", generator, words, TOKENS)


class NeverCleared(PSNR):
    """Adds one pass to the other."""

    started = False

    def start(self, context):
        if not self.started:
            super().start(context)
        self.started = True

    def compute(self):
        return {"psnr": Result(self.total.item())}


class MeanOfMeans(PSNR):
    """Keeps what two processes cannot add."""

    def state(self):
        return {"total": self.total / self.count, "count": torch.ones((), dtype=torch.float64)}

    def compute(self):
        return {"psnr": Result((self.total / self.count).item())}


class NotFinite(PSNR):
    """Gives no number."""

    def compute(self):
        return {"psnr": Result(float("nan"))}


class Bare(PSNR):
    """Gives a number without anything about it."""

    def compute(self):
        return {"psnr": self.total.item()}


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (Bare, "the result 'psnr' must be a Result, found float"),
        (NeverCleared, "`start` must clear the state"),
        (MeanOfMeans, "the states of two processes, added, give other results than one"),
        (NotFinite, "the result 'psnr' is not finite"),
    ],
)
def test_a_metric_that_breaks_a_promise_is_caught(metric, words):
    caught("metric", metric, words)


class Vector(PixelReconstruction):
    """Gives a number an image."""

    def forward(self, step):
        return (step.images - step.batch.images).square().mean(dim=(1, 2, 3))


class NoGradient(PixelReconstruction):
    """Gives a constant."""

    def forward(self, step):
        return super().forward(step).detach()


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
        ("loss", Vector, {}, "`forward` must be a scalar tensor of a floating point type, found (8,)"),
        ("loss", NoGradient, {}, "no gradient reaches the pictures that it compares"),
        ("dataset", Bright, {}, "images of train must lie in [-1, 1]"),
        ("features", Thawed, {}, "a frozen network has no parameters with gradients, and this has ['extra']"),
        ("stage", OneName, TRAINING, "`needs` must be a tuple of names"),
        ("post_trainer", Elsewhere, {}, "`trained` gives parameters that are not the tokenizer's"),
        ("sample_metric", Infinite, WITH_FEATURES, "the result 'inception_score' is not finite"),
    ],
)
def test_other_breaches_are_caught(kind, component, config, words):
    caught(kind, component, words, config)


def test_a_class_that_cannot_be_registered_or_configured_is_told_why():
    half = type("Half", (Perturbation,), {"Config": TopDelta.Config})
    caught("perturbation", half, "perturbation 'Half' does not implement perturb")
    caught("perturbation", TopDelta, "did you mean 'delta'?", {"detla": 1})
    caught("pertubation", TopDelta, "no kind is called 'pertubation'")
    caught("tokenizer", TopDelta, "must be a subclass of Tokenizer")


def test_an_instance_of_the_configuration_will_do():
    check_component("perturbation", TopDelta, TopDelta.Config(beta=0.5, delta=4))
    space = LatentSpace(kind="discrete", num_tokens=9, width=2, codebook_size=8)
    check_component("perturbation", TopDelta, {"beta": 0.5, "delta": 4}, space=space)
