"""Checks that a component does what its kind promises.

    from robustok.testing import check_component

    def test_drop_keeps_the_contract():
        check_component("perturbation", Drop, {"rate": 0.5})

The checks run on the CPU with tiny inputs and take about a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from robustok.testing.inputs import dataset_checks, importer_checks, stage_checks
from robustok.testing.latent_models import generator_checks, post_trainer_checks
from robustok.testing.measures import features_checks, metric_checks, sample_metric_checks
from robustok.testing.subject import Subject
from robustok.testing.tokenizers import quantizer_checks, tokenizer_checks
from robustok.testing.training_parts import loss_checks, perturbation_checks
from robustok_core.errors import RobustokError
from robustok_core.kinds import KINDS
from robustok_core.kinds.boundary import BrokenPromise
from robustok_core.recipe.hookspecs import hookimpl
from robustok_core.recipe.registry import Registry, load_registry
from robustok_core.values.spec import Spec

_CHECKS: Mapping[str, Callable[..., None]] = {
    "dataset": dataset_checks,
    "features": features_checks,
    "generator": generator_checks,
    "importer": importer_checks,
    "loss": loss_checks,
    "metric": metric_checks,
    "perturbation": perturbation_checks,
    "post_trainer": post_trainer_checks,
    "quantizer": quantizer_checks,
    "sample_metric": sample_metric_checks,
    "stage": stage_checks,
    "tokenizer": tokenizer_checks,
}


def check_component(
    kind: str, component: type | str, config: Any = None, *, registry: Registry | None = None, **parts: Any
) -> None:
    """Builds a component and checks what its kind promises: shapes, types, gradients, random numbers and saved state.

    Args:
        kind: "tokenizer", "perturbation", ...
        component: the class, or a registered name.
        config: its options as in a recipe's table, or an instance of its `Config`; default: its defaults.
        registry: the plugins to use; default: all installed ones.
        parts: replacements for the test inputs that do not suit the component: `space` (a `LatentSpace`) for a
            perturbation or generator; `tokenizer` (a recipe table) for a loss, metric or post_trainer; `generator` (a
            recipe table) for a post_trainer; `num_images` for a metric or sample_metric. An importer requires `file`;
            a stage is run only if `recipe` (a table) is given.

    Raises:
        AssertionError: if the component breaks a promise; the message says which.
    """
    if kind not in KINDS:
        raise AssertionError(f"no kind is called {kind!r}; there are {', '.join(KINDS)}")
    registry = registry or load_registry()
    name = component if isinstance(component, str) else _registered(kind, component, registry)
    subject = Subject(spec=_spec(kind, name, config, registry), registry=registry)
    try:
        _CHECKS[kind](subject, **parts)
    except BrokenPromise as error:  # what is checked in runs, too
        raise AssertionError(error.what) from error


def _registered(kind: str, component: type, registry: Registry) -> str:
    """The registered name of a class; registers it under its own name if it has none."""
    for entry in registry.entries(kind):
        if entry.factory is component:
            return entry.name

    class Plugin:
        @hookimpl
        def robustok_register(self, register: Callable[[str, str, type], None]) -> None:
            register(kind, component.__name__, component)

    error = registry.add_plugin(Plugin(), f"robustok.testing {kind} {component.__name__}").error
    if error is not None:
        raise AssertionError(f"cannot be registered: {error}")
    return component.__name__


def _spec(kind: str, name: str, config: Any, registry: Registry) -> Spec:
    is_table = config is None or isinstance(config, Mapping)
    try:
        spec = registry.spec(kind, {"use": name, **(config or {})} if is_table else {"use": name})
    except RobustokError as error:
        raise AssertionError(str(error)) from error
    return spec if is_table else attrs.evolve(spec, config=config)
