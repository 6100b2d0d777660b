"""robustok for programs, the one import that they need.

    import robustok

    tokenizer = robustok.load_tokenizer("runs/main_train")
    pictures = robustok.load_generator("runs/main_train").sample_images("bag", n=8)

Everything public of `robustok_core` is here as well: what plugins, recipes and runs are made of. `robustok.testing` has
the checks for components of your own. All names are loaded at first use, so that the import costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import robustok_core
from robustok_core import __version__

_WHERE = {
    "load_generator": "robustok_toolkit.trained_generator",
    "load_tokenizer": "robustok_toolkit.trained_tokenizer",
}

__all__ = ["load_generator", "load_tokenizer"]
__all__ += robustok_core.__all__

if TYPE_CHECKING:
    from robustok_core import (
        Batch,
        Dataset,
        Draws,
        Evaluation,
        EvaluationContext,
        Features,
        Generator,
        GeneratorPromise,
        Guidance,
        ImageBatch,
        ImageFeatures,
        Images,
        Importer,
        Keep,
        LatentBatch,
        Latents,
        LatentSpace,
        Loss,
        Metric,
        Opponent,
        Perturbation,
        PostTrainer,
        ProblemsError,
        Promise,
        Quantizer,
        Recipe,
        Reconstruction,
        Registry,
        Result,
        RobustokError,
        Rows,
        RunError,
        SampleMetric,
        Spec,
        Stage,
        StageContext,
        Tokenizer,
        TokenizerPromise,
        component,
        components,
        derive_seed,
        hookimpl,
        load_component,
        load_registry,
        run,
        sampler_options,
        save_component,
    )
    from robustok_toolkit.trained_generator import load_generator
    from robustok_toolkit.trained_tokenizer import load_tokenizer


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE.get(name, "robustok_core")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
