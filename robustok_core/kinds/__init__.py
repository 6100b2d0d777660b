"""The kinds of component that a plugin can provide, one file and one abstract class each.

Every component has a `Config`, a frozen keyword-only attrs class, and is built as `Component(config)`, a generator as
`Generator(config, space, num_classes)`. A field that holds another component is declared with
`robustok_core.component("kind")`; its value is a `Spec`, whose `build()` makes the component.
"""

from __future__ import annotations

from collections.abc import Mapping

from robustok_core.kinds.dataset import Dataset
from robustok_core.kinds.features import Features
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.importer import Importer
from robustok_core.kinds.loss import Loss
from robustok_core.kinds.metric import Metric
from robustok_core.kinds.perturbation import Perturbation
from robustok_core.kinds.post_trainer import PostTrainer
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.kinds.sample_metric import SampleMetric
from robustok_core.kinds.stage import Stage
from robustok_core.kinds.tokenizer import Tokenizer

KINDS: Mapping[str, type] = {
    "dataset": Dataset,
    "tokenizer": Tokenizer,
    "quantizer": Quantizer,
    "perturbation": Perturbation,
    "loss": Loss,
    "features": Features,
    "metric": Metric,
    "sample_metric": SampleMetric,
    "generator": Generator,
    "post_trainer": PostTrainer,
    "stage": Stage,
    "importer": Importer,
}

#: Top-level tables of a recipe that hold a component, and the component's kind.
TABLES: Mapping[str, str] = {
    "data": "dataset",
    "tokenizer": "tokenizer",
    "perturbation": "perturbation",
    "generator": "generator",
    "post_trainer": "post_trainer",
}
