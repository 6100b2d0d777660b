"""robustok's core: interfaces, registry, recipes and the training engine. It knows no model.

The names below are the public API; everything is loaded at first use, so that importing the
package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "config": ("Spec", "component", "components"),
    "draws": ("Draws", "derive_seed"),
    "errors": ("ProblemsError", "RobustokError", "RunError"),
    "hookspecs": ("hookimpl",),
    "interfaces": (
        "Dataset",
        "Evaluation",
        "EvaluationContext",
        "Features",
        "Generator",
        "Guidance",
        "ImageBatch",
        "Images",
        "Importer",
        "LatentBatch",
        "Loss",
        "Metric",
        "Opponent",
        "Perturbation",
        "Population",
        "PostTrainer",
        "Quantizer",
        "Reconstruction",
        "Rows",
        "SampleMetric",
        "Stage",
        "Tokenizer",
    ),
    "latents": ("Keep", "LatentSpace", "Latents"),
    "recipe": ("Recipe",),
    "registry": ("Registry", "load_registry"),
    "runner": ("run",),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]  # noqa: PLE0604 (the names are strings)

if TYPE_CHECKING:
    from robustok_core.config import Spec, component, components
    from robustok_core.draws import Draws, derive_seed
    from robustok_core.errors import ProblemsError, RobustokError, RunError
    from robustok_core.hookspecs import hookimpl
    from robustok_core.interfaces import (
        Dataset,
        Evaluation,
        EvaluationContext,
        Features,
        Generator,
        Guidance,
        ImageBatch,
        Images,
        Importer,
        LatentBatch,
        Loss,
        Metric,
        Opponent,
        Perturbation,
        Population,
        PostTrainer,
        Quantizer,
        Reconstruction,
        Rows,
        SampleMetric,
        Stage,
        Tokenizer,
    )
    from robustok_core.latents import Keep, Latents, LatentSpace
    from robustok_core.recipe import Recipe
    from robustok_core.registry import Registry, load_registry
    from robustok_core.runner import run


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
