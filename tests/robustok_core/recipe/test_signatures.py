"""A constructor or method that robustok could not call is found when its plugin registers it."""

from __future__ import annotations

import functools

import pytest
import torch

from robustok_core import Generator, Perturbation, Quantizer, Registry, hookimpl
from robustok_core.recipe.signatures import signature_problem
from robustok_generators.rar import RAR
from robustok_perturbations.none import NoPerturbation
from robustok_quantizers.vq import VQ


class Base:
    """Stands for a kind."""

    def make(self, image, size, *, draws):
        """Makes something."""

    def check(self, space, batch_size=None):
        """Has an argument that callers may leave out."""

    @classmethod
    def files(cls, config):
        """Is called before anything is built."""

    @classmethod
    def of_strength(cls, config, **strength):
        """Takes what components name themselves."""

    @property
    def width(self):
        """Is no method."""
        return 3


Base.__module__ = "robustok_core.kinds.base"


def problem(**methods):
    return signature_problem(Base, type("Theirs", (Base,), methods))


@pytest.mark.parametrize(
    "method",
    [
        lambda self, image, size, *, draws: None,
        lambda self, x, y, *, draws: None,
        lambda self, image, size, draws: None,
        lambda self, image, size=3, *, draws=None, progress=None: None,
        lambda self, *images, **options: None,
        lambda *everything, draws: None,
        staticmethod(lambda image, size, *, draws: None),
    ],
)
def test_a_method_may_name_its_arguments_otherwise_and_add_optional_ones(method):
    assert problem(make=method) is None


@pytest.mark.parametrize(
    ("method", "found"),
    [
        (lambda self, image, *, draws: None, "(self, image, *, draws)"),
        (lambda self, image, size: None, "(self, image, size)"),
        (lambda self, image, size, *, rng: None, "(self, image, size, *, rng)"),
        (lambda self, image, size, scale, *, draws: None, "(self, image, size, scale, *, draws)"),
        (lambda self, image, size, *, draws, scale: None, "(self, image, size, *, draws, scale)"),
        (lambda image, size, *, draws: None, "(image, size, *, draws)"),
        (staticmethod(lambda self, image, size, *, draws: None), "(self, image, size, *, draws)"),
    ],
)
def test_a_method_that_takes_less_or_asks_for_more_is_a_problem(method, found):
    assert problem(make=method) == f"make{found} must take (image, size, *, draws)"


def test_of_a_decorated_method_what_callers_call_counts():
    def with_noise(method):
        @functools.wraps(method)
        def wrapped(self, image, size, *, draws):
            return method(self, image, size, draws.normal(1))

        return wrapped

    def passing(method):
        @functools.wraps(method)
        def wrapped(*args, **options):
            return method(*args, **options)

        return wrapped

    assert problem(make=with_noise(lambda self, image, size, noise: None)) is None
    assert problem(make=passing(lambda self, image: None)) is None, "it may pass on something else"
    found = problem(make=torch.no_grad()(lambda self, image: None))
    assert found == "make(self, image) must take (image, size, *, draws)"
    assert problem(make=torch.no_grad()(lambda self, image, size, *, draws: None)) is None


def test_an_argument_that_callers_may_leave_out_must_be_taken_and_not_be_required():
    words = "must take (space, batch_size=None)"
    assert problem(check=lambda self, space, batch_size: None) == f"check(self, space, batch_size) {words}"
    assert problem(check=lambda self, space: None) == f"check(self, space) {words}"
    assert problem(check=lambda self, space, batch_size=4: None) is None


def test_a_method_of_the_class_must_be_one():
    assert problem(files=lambda self, config: ()) == "files must be a classmethod"
    assert problem(files=classmethod(lambda cls: ())) == "files() must take (config)"
    assert problem(files=classmethod(lambda cls, options: ())) is None
    assert problem(files=staticmethod(lambda config: ())) is None


def test_names_that_the_kind_leaves_open_are_the_components_own():
    assert problem(of_strength=classmethod(lambda cls, config, *, alpha, delta: None)) is None
    assert problem(of_strength=classmethod(lambda cls: None)) == "of_strength() must take (config, **strength)"


def test_a_property_may_become_an_attribute_and_no_method():
    assert problem(width=lambda self: 3) == "width must be a property"
    assert problem(width=4) is None


def test_methods_that_the_kind_does_not_have_are_the_components_own():
    assert problem(other=lambda self: None, _private=lambda: None) is None


class NoDraws(VQ):
    """Updates its codebook without random numbers."""

    def after_step(self):
        self.updated = True


class NoConfig(NoPerturbation):
    """Cannot be built from its options."""

    def __init__(self, *, strength: float = 1.0):
        self.strength = strength


class NoClasses(RAR):
    """Is built as a tokenizer is."""

    def __init__(self, config, space):
        super().__init__(config, space, 10)


class NoProgress(NoPerturbation):
    """Takes too little."""

    def perturb(self, latents, quantizer):
        return latents, None


@pytest.mark.parametrize(
    ("kind", "base", "component", "words"),
    [
        (
            "perturbation",
            Perturbation,
            NoConfig,
            "'theirs': its constructor takes (*, strength=1.0), and must take (config)",
        ),
        (
            "generator",
            Generator,
            NoClasses,
            "'theirs': its constructor takes (config, space), and must take (config, space, num_classes)",
        ),
        ("quantizer", Quantizer, NoDraws, "quantizer 'theirs': after_step(self) must take (draws)"),
        (
            "perturbation",
            Perturbation,
            NoProgress,
            "'theirs': perturb(self, latents, quantizer) must take (latents, quantizer, *, draws, progress)",
        ),
    ],
)
def test_a_plugin_with_such_a_component_is_not_in_use_and_the_reason_names_it(kind, base, component, words):
    class Plugin:
        @hookimpl
        def robustok_register(self, register):
            register(kind, "theirs", component)

    registry = Registry()
    assert issubclass(component, base)
    assert registry.add_plugin(Plugin(), "theirs").error.endswith(words)
    assert registry.entries() == []
