"""Checks of feature networks, metrics and sample metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from robustok.testing.subject import TINY_TOKENIZER, Subject, close, pictures
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.metric import Evaluation, EvaluationContext, Metric
from robustok_core.kinds.sample_metric import ImageFeatures
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_core.values.images import from_uint8, to_uint8
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec
from robustok_core.values.wording import some_names


def features_checks(subject: Subject) -> None:
    """Checks features and maps of images of any size, gradients to the images, and that the network is frozen."""
    network, again = subject.build(), subject.build(seed=1)
    images = pictures(3, 32).requires_grad_()
    network(images).sum().backward()
    subject.require(bool(images.grad is not None and images.grad.any()), "no gradient reaches the images")
    with torch.no_grad():
        subject.tensor(network(images), (len(images), network.width), None, "features of `forward`")
        wide = torch.nn.functional.interpolate(images, size=(40, 48), mode="bilinear")
        network(wide)
        alone = close(network(images[:1]), network(images)[:1])
        subject.require(alone, "the features of an image depend on the other images of its batch")
        subject.require(close(again(images), network(images)), "two builds give different features")
        network.maps(images)
        if network.num_logits:
            network.logits(network(images))
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    subject.require(
        not trained, f"a frozen network must not have parameters that require gradients, found {some_names(trained)}"
    )
    subject.require(not network.train().training, "`train` must leave it in eval mode")
    prints = (network.fingerprint, again.fingerprint)
    same = isinstance(prints[0], str) and bool(prints[0]) and prints[0] == prints[1]
    subject.require(same, "`fingerprint` must be a string, the same for equal networks")


def metric_checks(subject: Subject, *, tokenizer: Mapping[str, Any] = TINY_TOKENIZER, num_images: int = 16) -> None:
    """Checks that results are finite, and the same from one process as from the added states of two."""
    net = subject.other("tokenizer", tokenizer).eval()
    context = EvaluationContext(
        tokenizer=net,
        source="robustok.testing",
        num_images=num_images,
        cache=None,
        share_features=_SharedNetworks(),
        device=torch.device("cpu"),
        train=_Pictures(num_images + 2, net.image_size),
    )
    metric = subject.build()
    metric.check(net.space)
    whole = _measured(metric, context, [slice(0, num_images)])
    _results_checks(subject, whole)
    again = _measured(metric, context, [slice(0, num_images)])
    for name, result in whole.items():
        if "num_images" not in result.details:
            means = 'a mean over images, which does not depend on how many there are, has details={"num_images": n}'
            _count_check(subject, name, result, f"; {means}")
    subject.require(_close(whole, again), "a second pass gives different results; `start` must clear the state")
    few = num_images // 4  # unequal, so that a mean of two means would be wrong
    first, second = subject.build(), subject.build()
    _pass(first, context, [slice(0, few)])
    _pass(second, context, [slice(few, num_images)])
    sums = {name: first.state()[name] + value for name, value in second.state().items()}
    first.load_state(sums)
    subject.require(
        _close(whole, first.compute()), "the added states of two processes give different results from one process"
    )


class _Pictures(Images):
    """Pictures that stand for training images."""

    fingerprint = "robustok.testing"

    def __init__(self, count: int, size: int) -> None:
        self.pixels = from_uint8(to_uint8(pictures(count, size).flip(3)))

    @property
    def labels(self) -> Tensor:
        return torch.arange(len(self.pixels)) % 2

    def load(self, indices: Sequence[int], draws: Draws | None = None) -> ImageBatch:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        return ImageBatch(images=self.pixels[rows], labels=rows % 2, indices=rows)


class _SharedNetworks:
    """Builds one network per configuration."""

    def __init__(self) -> None:
        self.built: dict[str, Any] = {}

    def __call__(self, spec: Spec) -> Any:
        if repr(spec) not in self.built:
            self.built[repr(spec)] = spec.build()
        return self.built[repr(spec)]


@torch.no_grad()
def _pass(metric: Metric, context: EvaluationContext, parts: Sequence[slice]) -> None:
    images = from_uint8(to_uint8(pictures(context.num_images, context.tokenizer.image_size)))
    draws = Draws.for_rows(0, context.num_images)
    metric.start(context)
    for part in parts:
        rows = torch.arange(context.num_images)[part]
        latents = context.tokenizer.encode(images[part])
        step = Evaluation(
            batch=ImageBatch(images=images[part], labels=rows % 2, indices=rows),
            latents=latents,
            images=from_uint8(to_uint8(context.tokenizer.decode(latents))),
            tokenizer=context.tokenizer,
            draws=draws[part],
        )
        metric.update(step)


def _measured(metric: Metric, context: EvaluationContext, parts: Sequence[slice]) -> Mapping[str, Any]:
    _pass(metric, context, parts)
    return metric.compute()


def _results_checks(subject: Subject, results: Any) -> None:
    for name, value in results.items():
        subject.require(math.isfinite(value.value), f"the result {name!r} is not finite")


def _count_check(subject: Subject, name: str, result: Result, otherwise: str = "") -> None:
    """Requires `num_images` of a result of which more or less is better: by it, unequal conditions are found."""
    counted = result.num_images is not None or result.higher_is_better is None
    words = "without which `robustok compare` marks the best of results of unequal numbers of images, or networks"
    subject.require(counted, f"the result {name!r} has a direction but no `num_images`, {words}{otherwise}")


def _close(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return first.keys() == second.keys() and all(
        math.isclose(value.value, second[name].value, rel_tol=1e-3, abs_tol=1e-4) for name, value in first.items()
    )


@frozen(kw_only=True, eq=False)
class _RandomFeatures(ImageFeatures):
    """Random features for `count` images that do not exist."""

    name: str
    count: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def features(self, network: Spec) -> Tensor:
        return Draws.for_rows(self.seed, self.count).normal(8) + self.seed

    def logits(self, network: Spec) -> Tensor:
        return Draws.for_rows(self.seed, self.count).child("logits").normal(10)

    def moments(self, network: Spec) -> tuple[Tensor, Tensor]:
        features = self.features(network).double()
        return features.mean(dim=0), features.T.cov()

    def other(self, name: str, limit: int | None = None) -> ImageFeatures:
        return _RandomFeatures(name=name, count=self.count if limit is None else limit, seed=2)


def sample_metric_checks(subject: Subject, *, num_images: int = 64) -> None:
    """Checks that the results for two sets of images are finite and reproducible."""
    metric = subject.build()
    metric.check(num_images, num_images)
    samples = _RandomFeatures(name="samples", count=num_images, seed=0)
    reference = _RandomFeatures(name="reference", count=num_images, seed=1)
    results = metric.compute(samples, reference)
    _results_checks(subject, results)
    for name, result in results.items():
        _count_check(subject, name, result)
    subject.require(
        _close(results, metric.compute(samples, reference)), "two calls with the same images give different results"
    )
