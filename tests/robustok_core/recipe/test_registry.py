"""The registry: broken plugins are isolated and named."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from attrs import frozen

import robustok_core.recipe.registry
from project import registry_with
from robustok_core import (
    Latents,
    Perturbation,
    ProblemsError,
    Registry,
    RobustokError,
    Stage,
    Tokenizer,
    hookimpl,
    load_registry,
)
from robustok_core.kinds import KINDS


@frozen(kw_only=True)
class NothingConfig:
    """No options."""


class Nothing(Perturbation):
    """Changes nothing."""

    Config = NothingConfig

    def __init__(self, config):
        self.config = config

    def perturb(self, latents, quantizer, *, draws, progress):
        return latents, None


class Plugin:
    def __init__(self, kind="perturbation", name="nothing", factory=Nothing):
        self.what = (kind, name, factory)

    @hookimpl
    def robustok_register(self, register):
        register(*self.what)


class Whole(Stage):
    """A stage that declares nothing."""

    Config = NothingConfig

    def run(self, context):
        return {}


class Escaping(Stage):
    """Would write an artifact outside the run's folder."""

    Config = NothingConfig
    makes = ("../tokenizer",)

    def run(self, context):
        return {}


class OneName(Stage):
    """Names an artifact where it should name several."""

    Config = NothingConfig
    makes = "probe"

    def run(self, context):
        return {}


class HalfATokenizer(Tokenizer):
    """Encodes, and cannot draw."""

    Config = NothingConfig

    def encode(self, images):
        return Latents(vectors=images.flatten(2))

    @property
    def decoder(self):
        return torch.nn.ModuleList()


class Point:
    """An entry point as importlib.metadata returns it."""

    def __init__(self, name, loaded):
        self.name, self.loaded, self.dist = name, loaded, SimpleNamespace(name="somebody")

    def load(self):
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


def test_all_first_party_plugins_load():
    assert {state.error for state in load_registry().plugins} == {None}


def test_a_stage_whose_artifact_name_leaves_the_run_folder_is_refused():
    state = Registry().add_plugin(Plugin("stage", "escaping", Escaping), "theirs")
    assert "stage 'escaping' makes an artifact called '../tokenizer': a name starts with" in state.error


@pytest.mark.parametrize("attribute", ["uses", "may_use"])
def test_a_stage_that_declares_a_table_which_no_recipe_has_is_refused(attribute):
    wrong = type("Wrong", (Whole,), {attribute: ("data", "pertubation")})
    state = Registry().add_plugin(Plugin("stage", "wrong", wrong), "theirs")
    assert "stage 'wrong' declares the table 'pertubation', which no recipe has" in state.error
    assert "did you mean 'perturbation'?" in state.error


@pytest.mark.parametrize("attribute", ["uses", "may_use", "needs", "makes"])
@pytest.mark.parametrize("names", [None, 3, {"data": 1}, ("data", None)])
def test_a_stage_that_declares_no_names_is_refused(attribute, names):
    state = Registry().add_plugin(Plugin("stage", "wrong", type("Wrong", (Whole,), {attribute: names})), "theirs")
    assert f"stage 'wrong': `{attribute}` must be a tuple of names, found {names!r}" in state.error


def test_a_plugin_that_fails_to_import_does_not_hide_others_and_is_named_when_its_component_is_missing():
    registry = load_registry([Point("broken", ImportError("no module named x")), Point("good", Plugin())])
    assert registry.names("perturbation") == ["nothing"]
    with pytest.raises(ProblemsError, match="broken: ImportError: no module named x"):
        registry.build("perturbation", {"use": "theirs"})


def test_two_plugins_with_one_entry_point_name_are_both_reported():
    registry = load_registry([Point("same", Plugin()), Point("same", Plugin(name="other"))])
    assert registry.plugins[0].error is None
    assert "already called 'same'" in registry.plugins[1].error


def test_a_component_that_two_plugins_provide_is_refused_when_it_is_used():
    registry = load_registry([Point("one", Plugin()), Point("two", Plugin())])
    with pytest.raises(ProblemsError, match="provided by two plugins, 'one' and 'two'"):
        registry.build("perturbation", {"use": "nothing"})


def test_a_plugin_for_another_hook_version_is_refused():
    old = Plugin()
    old.ROBUSTOK_HOOKS = 0
    registry = load_registry([Point("old", old)])
    assert registry.names("perturbation") == []
    assert "hook version 0" in registry.plugins[0].error


def test_a_misspelt_hook_is_an_error():
    class Misspelt:
        @hookimpl
        def robustok_registr(self, register):
            raise AssertionError

    registry = load_registry([Point("misspelt", Misspelt()), Point("good", Plugin())])
    assert "robustok_registr" in registry.plugins[0].error
    assert registry.names("perturbation") == ["nothing"]


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (Plugin(kind="pertubation"), "did you mean 'perturbation'"),
        (Plugin(factory=int), "subclass of Perturbation"),
        (Plugin("tokenizer", "half", HalfATokenizer), "tokenizer 'half' does not implement decode_vectors, last_layer"),
        (Plugin(factory=type("Bare", (Nothing,), {"Config": None})), "needs a `Config`"),
    ],
)
def test_what_a_plugin_registers_is_checked(plugin, words):
    registry = load_registry([Point("wrong", plugin)])
    assert words in registry.plugins[0].error
    assert registry.entries() == []


def test_two_registries_share_nothing():
    first, second = Registry(), Registry()
    first.add_plugin(Plugin(), "p")
    assert first.names("perturbation") == ["nothing"]
    assert second.names("perturbation") == []


def test_an_unknown_kind_is_refused(registry):
    with pytest.raises(RobustokError, match="did you mean 'tokenizer'"):
        registry.build("tokeniser", {"use": "x"})


def test_every_component_documents_itself_and_each_of_its_options(registry):
    import attrs

    for entry in registry.entries():
        assert entry.factory.__doc__, entry
        assert issubclass(entry.factory, KINDS[entry.kind])
        for option in attrs.fields(entry.factory.Config):
            assert option.metadata.get("doc"), f"{entry.kind} {entry.name}: {option.name} has no doc"


def test_a_stage_whose_names_are_a_string_is_refused():
    registry = Registry()
    state = registry.add_plugin(Plugin("stage", "one_name", OneName), "theirs")
    assert "stage 'one_name': `makes` must be a tuple of names, ('probe',)" in state.error


def test_a_name_that_two_plugins_provide_is_refused_naming_both(refused, recipe_file, monkeypatch):
    registry = registry_with(perturbation={"top_delta": Nothing})
    monkeypatch.setattr(robustok_core.recipe.registry, "load_registry", lambda: registry)
    output = refused("check", recipe_file())
    assert "perturbation 'top_delta' is provided by two plugins, 'robustok_perturbations' and 'test0'" in output
    assert "hint: uninstall or rename one" in output
    assert "two plugins" in refused("plugins", "perturbation", "top_delta")
