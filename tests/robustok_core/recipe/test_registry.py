"""The registry: broken plugins are isolated and named."""

from __future__ import annotations

import json
import re
from importlib.metadata import entry_points
from types import SimpleNamespace

import pytest
import torch
from attrs import field, frozen

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
from robustok_perturbations.top_delta import TopDelta


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


def test_a_name_that_two_plugins_provide_is_refused_naming_both(refused, monkeypatch):
    registry = registry_with(Plugin(), Plugin())
    monkeypatch.setattr(robustok_core.recipe.registry, "load_registry", lambda: registry)
    output = refused("plugins", "perturbation", "nothing")
    assert "perturbation 'nothing' is provided by two plugins, 'test0' and 'test1'" in output
    assert "hint: uninstall or rename one" in output
    assert registry.left_out("test0") == [
        "its perturbation 'nothing', since 'test1' has one, too; uninstall or rename one"
    ]


def named_top_delta(first: bool, *others: Plugin) -> Registry:
    """robustok's perturbations, and a plugin that loads before or after them and has one of the same name."""
    ours = [point for point in entry_points(group="robustok") if point.name == "robustok_perturbations"]
    theirs = [Point("theirs", Plugin(name="top_delta")), *(Point("others", each) for each in others)]
    return load_registry([*theirs, *ours] if first else [*ours, *theirs])


@pytest.mark.parametrize("first", [True, False], ids=["it loads first", "it loads last"])
def test_robustoks_own_component_stays_in_use_where_another_plugin_takes_its_name(first):
    registry = named_top_delta(first)
    assert registry.find("perturbation", "top_delta") is TopDelta
    assert registry.classes("perturbation")["top_delta"] is TopDelta
    assert registry.distribution(registry.spec("perturbation", {"use": "top_delta"})) == "robustok"
    assert registry.left_out("robustok_perturbations") == []
    reason = "its perturbation 'top_delta', since robustok's own has this name; give it another one"
    assert registry.left_out("theirs") == [reason]


def test_robustoks_own_component_stays_in_use_where_two_plugins_take_its_name():
    registry = named_top_delta(True, Plugin(name="top_delta"))
    assert registry.find("perturbation", "top_delta") is TopDelta
    assert registry.left_out("theirs") == registry.left_out("others") != []


def test_plugins_lists_what_is_left_out_with_the_reason(command, monkeypatch):
    monkeypatch.setattr(robustok_core.recipe.registry, "load_registry", lambda: named_top_delta(True))
    code, output, _ = command("plugins")
    assert code == 0
    assert re.search(r"^ +top_delta .*\[robustok_perturbations\]$", output, re.MULTILINE)
    assert re.search(r"^ +theirs +somebody, not in use: its perturbation 'top_delta', since", output, re.MULTILINE)
    states = {each["name"]: each for each in json.loads(command("plugins", "--json")[1])["plugins"]}
    assert states["robustok_perturbations"]["left_out"] == []
    assert states["theirs"]["left_out"] == named_top_delta(True).left_out("theirs")
    assert states["theirs"]["error"] is None


def test_a_plugin_that_registers_one_name_twice_is_refused():
    class Twice:
        @hookimpl
        def robustok_register(self, register):
            register("perturbation", "nothing", Nothing)
            register("perturbation", "nothing", Nothing)

    registry = load_registry([Point("twice", Twice())])
    assert "it registers the name 'nothing' twice for a perturbation" in registry.plugins[0].error
    assert registry.entries() == []


def a_function(register):
    """What an entry point names that ends with the hook instead of its module."""
    register("perturbation", "nothing", Nothing)


def test_an_entry_point_that_brings_no_hook_is_told_what_to_name():
    registry = load_registry([Point("theirs", a_function), Point("module", SimpleNamespace())])
    what = 'it has no hook: name the module that has `robustok_register` (theirs = "package.module"), not a function'
    assert registry.plugins[0].error.endswith(what)
    assert registry.plugins[1].error.endswith('`robustok_register` (module = "package.module")')


@frozen(kw_only=True)
class UnknownConfig:
    """Has an option whose type names nothing."""

    size: int = 3
    width: Whatever = 3  # noqa: F821


@frozen(kw_only=True)
class HoldingConfig:
    """Holds a table with such an option."""

    inner: UnknownConfig = field(factory=UnknownConfig)


@frozen(kw_only=True)
class FirstConfig:
    """May hold a table that may hold one of its own kind."""

    second: SecondConfig | None = None


@frozen(kw_only=True)
class SecondConfig:
    """See `FirstConfig`."""

    first: FirstConfig | None = None


def test_tables_may_hold_each_other():
    theirs = type("Both", (Nothing,), {"Config": FirstConfig})
    registry = load_registry([Point("theirs", Plugin(name="both", factory=theirs))])
    assert registry.plugins[0].error is None
    assert registry.spec("perturbation", {"use": "both", "second": {"first": {}}}).config.second.first == FirstConfig()


@pytest.mark.parametrize("config", [UnknownConfig, HoldingConfig])
def test_an_option_whose_type_names_nothing_disables_its_plugin_only(config, command, monkeypatch):
    theirs = type("Unknown", (Nothing,), {"Config": config})
    registry = load_registry([Point("theirs", Plugin(name="unknown", factory=theirs)), Point("good", Plugin())])
    what = "perturbation 'unknown': the type 'Whatever' of the option `width` of UnknownConfig is not known (NameError"
    assert what in registry.plugins[0].error
    monkeypatch.setattr(robustok_core.recipe.registry, "load_registry", lambda: registry)
    assert [one["name"] for one in json.loads(command("plugins", "--json")[1])["components"]] == ["nothing"]
