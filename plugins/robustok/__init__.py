"""The public API of robustok: one import for programs.

    import robustok

    tokenizer = robustok.load_tokenizer("runs/main_train")
    images = robustok.load_generator("runs/main_train").sample_images("bag", n=8)

It also has all public names of `robustok_core`, for writing plugins and running recipes. `robustok.testing` checks
components of your own. Names are imported on first use, so that `import robustok` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import robustok_core
from robustok_core import __version__

_MODULES = {
    "from_pretrained": "robustok_toolkit.pushed",
    "load_generator": "robustok_toolkit.trained_generator",
    "load_tokenizer": "robustok_toolkit.trained_tokenizer",
}

__all__ = ["from_pretrained", "load_generator", "load_tokenizer"]
__all__ += robustok_core.__all__

if TYPE_CHECKING:
    from robustok_core import (
        Batch,
        Dataset,
        Download,
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
        local_file,
        named_path,
        run,
        sampler_options,
        save_component,
    )
    from robustok_toolkit.pushed import from_pretrained
    from robustok_toolkit.trained_generator import load_generator
    from robustok_toolkit.trained_tokenizer import load_tokenizer


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES.get(name, "robustok_core")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
