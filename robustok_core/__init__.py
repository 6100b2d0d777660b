"""robustok's core: interfaces, registry, recipes and runs. It knows no model.

The names below are the public API. Each is loaded on first use, so that importing the package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "errors": (
        "ProblemsError",
        "RobustokError",
        "RunError",
    ),
    "kinds.dataset": (
        "Dataset",
        "Images",
        "Rows",
    ),
    "kinds.features": ("Features",),
    "kinds.generator": ("Generator",),
    "kinds.importer": ("Importer",),
    "kinds.loss": (
        "Loss",
        "Opponent",
        "Reconstruction",
    ),
    "kinds.metric": (
        "Evaluation",
        "EvaluationContext",
        "Metric",
    ),
    "kinds.perturbation": ("Perturbation",),
    "kinds.post_trainer": ("PostTrainer",),
    "kinds.promise": ("Promise",),
    "kinds.quantizer": ("Quantizer",),
    "kinds.sample_metric": (
        "ImageFeatures",
        "SampleMetric",
    ),
    "kinds.stage": (
        "Stage",
        "StageContext",
    ),
    "kinds.tokenizer": ("Tokenizer",),
    "recipe.hookspecs": ("hookimpl",),
    "recipe.recipe": ("Recipe",),
    "recipe.registry": (
        "Registry",
        "load_registry",
    ),
    "runs.components": (
        "load_component",
        "save_component",
    ),
    "runs.promises": (
        "GeneratorPromise",
        "TokenizerPromise",
    ),
    "runs.runner": ("run",),
    "values.batches": (
        "Batch",
        "ImageBatch",
        "LatentBatch",
    ),
    "values.download": (
        "Download",
        "local_file",
        "named_path",
    ),
    "values.draws": (
        "Draws",
        "derive_seed",
    ),
    "values.guidance": ("Guidance",),
    "values.latents": (
        "Keep",
        "LatentSpace",
        "Latents",
    ),
    "values.result": ("Result",),
    "values.spec": (
        "Spec",
        "component",
        "components",
        "sampler_options",
    ),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "Batch",
    "Dataset",
    "Download",
    "Draws",
    "Evaluation",
    "EvaluationContext",
    "Features",
    "Generator",
    "GeneratorPromise",
    "Guidance",
    "ImageBatch",
    "ImageFeatures",
    "Images",
    "Importer",
    "Keep",
    "LatentBatch",
    "LatentSpace",
    "Latents",
    "Loss",
    "Metric",
    "Opponent",
    "Perturbation",
    "PostTrainer",
    "ProblemsError",
    "Promise",
    "Quantizer",
    "Recipe",
    "Reconstruction",
    "Registry",
    "Result",
    "RobustokError",
    "Rows",
    "RunError",
    "SampleMetric",
    "Spec",
    "Stage",
    "StageContext",
    "Tokenizer",
    "TokenizerPromise",
    "__version__",
    "component",
    "components",
    "derive_seed",
    "hookimpl",
    "load_component",
    "load_registry",
    "local_file",
    "named_path",
    "run",
    "sampler_options",
    "save_component",
]

if TYPE_CHECKING:
    from robustok_core.errors import ProblemsError, RobustokError, RunError
    from robustok_core.kinds.dataset import Dataset, Images, Rows
    from robustok_core.kinds.features import Features
    from robustok_core.kinds.generator import Generator
    from robustok_core.kinds.importer import Importer
    from robustok_core.kinds.loss import Loss, Opponent, Reconstruction
    from robustok_core.kinds.metric import Evaluation, EvaluationContext, Metric
    from robustok_core.kinds.perturbation import Perturbation
    from robustok_core.kinds.post_trainer import PostTrainer
    from robustok_core.kinds.promise import Promise
    from robustok_core.kinds.quantizer import Quantizer
    from robustok_core.kinds.sample_metric import ImageFeatures, SampleMetric
    from robustok_core.kinds.stage import Stage, StageContext
    from robustok_core.kinds.tokenizer import Tokenizer
    from robustok_core.recipe.hookspecs import hookimpl
    from robustok_core.recipe.recipe import Recipe
    from robustok_core.recipe.registry import Registry, load_registry
    from robustok_core.runs.components import load_component, save_component
    from robustok_core.runs.promises import GeneratorPromise, TokenizerPromise
    from robustok_core.runs.runner import run
    from robustok_core.values.batches import Batch, ImageBatch, LatentBatch
    from robustok_core.values.download import Download, local_file, named_path
    from robustok_core.values.draws import Draws, derive_seed
    from robustok_core.values.guidance import Guidance
    from robustok_core.values.latents import Keep, Latents, LatentSpace
    from robustok_core.values.result import Result
    from robustok_core.values.spec import Spec, component, components, sampler_options


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
