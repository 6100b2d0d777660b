"""A tiny tokenizer, real images, and a pass over them like the evaluation stage's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor

from robustok_core import (
    Draws,
    Evaluation,
    EvaluationContext,
    Features,
    ImageBatch,
    ImageFeatures,
    Images,
    Metric,
    Registry,
    Result,
    Spec,
    Tokenizer,
)
from robustok_core.values.images import from_uint8, to_uint8

NUM_IMAGES = 60


@frozen(kw_only=True)
class ColoursConfig:
    name: str = "colours"
    version: int = 1


class Colours(Features):
    """Mean of each channel and of its square: 6 numbers; counts the images it has seen."""

    Config = ColoursConfig
    width = 6

    def __init__(self, config: ColoursConfig) -> None:
        super().__init__()
        self.config = config
        self.name = config.name
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return torch.cat([images.mean(dim=(2, 3)), images.square().mean(dim=(2, 3))], dim=1)

    def maps(self, images: Tensor) -> list[Tensor]:
        return [images]

    @property
    def fingerprint(self) -> str:
        return f"{self.name}-{self.config.version}"


def colours(name: str = "colours", version: int = 1) -> Spec:
    config = ColoursConfig(name=name, version=version)
    return Spec(kind="features", name="colours", factory=Colours, config=config)


@pytest.fixture(scope="session", name="colours")
def colours_fixture() -> Callable[..., Spec]:
    """A feature network of width 6, under any name."""
    return colours


class Given(ImageFeatures):
    """A population with given features or class scores."""

    def __init__(self, rows: Tensor, name: str = "given") -> None:
        self.rows, self.name = rows.float(), name

    def __len__(self) -> int:
        return len(self.rows)

    def features(self, network: Spec) -> Tensor:
        return self.rows

    def logits(self, network: Spec) -> Tensor:
        return self.rows

    def moments(self, network: Spec) -> tuple[Tensor, Tensor]:
        return self.rows.double().mean(0), self.rows.double().T.cov()


@pytest.fixture(scope="session")
def given() -> Callable[..., ImageFeatures]:
    """A population with given features (n, F) or class scores (n, C)."""
    return Given


@pytest.fixture(scope="session")
def images(registry: Registry) -> ImageBatch:
    dataset = registry.build("dataset", {"use": "fashion_mnist"})
    return dataset.validation.load(range(NUM_IMAGES))


def tiny_tokenizer(registry: Registry) -> Tokenizer:
    """A tokenizer with random weights, 16 tokens and 32 codes."""
    table = {
        "use": "conv_vq",
        "image_size": 32,
        "channels": 8,
        "channel_multipliers": [1, 1],
        "num_res_blocks": 1,
        "attention": False,
        "norm_groups": 4,
        "stem_patch": 4,
        "z_channels": 8,
        "quantizer": {"use": "vq", "codebook_size": 32, "width": 4},
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer: Tokenizer = registry.build("tokenizer", table)
        return tokenizer.eval()


@pytest.fixture(scope="session")
def tokenizer(registry: Registry) -> Tokenizer:
    return tiny_tokenizer(registry)


class Pass:
    """One pass over images for some metrics."""

    def __init__(self, tokenizer: Tokenizer, images: ImageBatch) -> None:
        self.tokenizer = tokenizer
        self.images = images
        self.networks: dict[str, Features] = {}
        self.train: Images | None = None

    def share(self, spec: Spec) -> Features:
        return self.networks.setdefault(repr(spec.table()), spec.build())

    def start(self, metric: Metric, *, source: str = "images", cache: Path | None = None) -> None:
        metric.start(
            EvaluationContext(
                tokenizer=self.tokenizer,
                source=source,
                num_images=len(self.images),
                cache=cache,
                share_features=self.share,
                device=torch.device("cpu"),
                train=self.train,
            )
        )

    @torch.no_grad()
    def step(self, rows: Tensor) -> Evaluation:
        batch = ImageBatch(
            images=self.images.images[rows], labels=self.images.labels[rows], indices=self.images.indices[rows]
        )
        latents = self.tokenizer.encode(batch.images)
        decoded = from_uint8(to_uint8(self.tokenizer.decode(latents)))
        draws = Draws(seed=7, indices=rows, total=len(self.images))
        return Evaluation(batch=batch, latents=latents, images=decoded, tokenizer=self.tokenizer, draws=draws)

    @torch.no_grad()
    def update(self, *metrics: Metric, rows: Tensor | None = None, batch_size: int = 20) -> None:
        rows = torch.arange(len(self.images)) if rows is None else rows
        for batch in rows.split(batch_size):
            step = self.step(batch)
            for metric in metrics:
                metric.update(step)

    def measure_in_halves(self, metric: Metric) -> Mapping[str, Result]:
        """Measures like two processes: each sees its own images, then the states are added."""
        states = []
        for rows in torch.arange(len(self.images)).split([len(self.images) // 3, 2 * len(self.images) // 3]):
            self.start(metric)
            self.update(metric, rows=rows)
            states.append(metric.state())
        metric.load_state({name: states[0][name] + states[1][name] for name in states[0]})
        return metric.compute()

    def measure(self, *metrics: Metric, batch_size: int = 20, **start: Any) -> Mapping[str, Result]:
        for metric in metrics:
            self.start(metric, **start)
        self.update(*metrics, batch_size=batch_size)
        return {name: result for metric in metrics for name, result in metric.compute().items()}

    @staticmethod
    def numbers(results: Mapping[str, Result]) -> dict[str, float]:
        """All numbers, including those of cells, for approximate comparisons."""
        numbers = {name: result.value for name, result in results.items()}
        numbers |= {f"{name}, images": result.num_images for name, result in results.items() if result.num_images}
        return numbers | {
            f"{name}/{cell}": distance
            for name, result in results.items()
            for cell, distance in result.details.get("cells", {}).items()
        }


@pytest.fixture
def evaluation(tokenizer: Tokenizer, images: ImageBatch) -> Pass:
    return Pass(tokenizer, images)
