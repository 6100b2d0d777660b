"""The code of components: whose it is, and when it counts as changed."""

from __future__ import annotations

import sys

import pytest

from project import recipe_of, registry_with
from robustok_core import Recipe, __version__
from robustok_core.runs.code import code_of, code_text, differences, shaping_code
from robustok_core.values.spec import Spec


class Elsewhere:
    """A component that a module of a test provides."""


def specs(registry, **components) -> list[Spec]:
    return [Spec(kind=kind, name="x", factory=component, config=None) for kind, component in components.items()]


def test_own_components_are_known_by_version_and_do_not_shape_a_fingerprint(registry):
    resolved = Recipe.from_table(recipe_of()).resolve(registry)
    code = code_of([resolved.tables, resolved.stages[0].spec], registry)
    assert code == {"robustok": {"version": __version__}}
    assert shaping_code(code) == {}
    assert shaping_code({"robustok": {"version": "9.0"}}) == {"robustok": "9.0"}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A package with one class, wherever it is nested in a configuration."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text("class Theirs: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("theirs")
    sys.modules.pop("theirs", None)


def test_a_plugin_is_known_by_the_source_of_its_whole_package(module, registry, tmp_path):
    nested = {"deep": [{"down": specs(registry, quantizer=module.Theirs)}]}
    first = code_of([nested], registry)
    assert first.keys() == {"theirs"}
    (tmp_path / "theirs" / "data.txt").write_text("not code")
    assert code_of([nested], registry) == first
    (tmp_path / "theirs" / "below").mkdir()
    (tmp_path / "theirs" / "below" / "helper.py").write_text("")
    second = code_of([nested], registry)
    assert differences(first, second) == [f"theirs ({code_text(first['theirs'])} -> {code_text(second['theirs'])})"]
    assert differences(second, second) == []


def test_what_an_editor_leaves_beside_the_source_is_no_code(module, registry, tmp_path):
    nested = specs(registry, loss=module.Theirs)
    first = code_of(nested, registry)
    (tmp_path / "theirs" / ".#open.py").symlink_to("user@host.1234:1")
    (tmp_path / "theirs" / ".checkpoints").mkdir()
    (tmp_path / "theirs" / ".checkpoints" / "helper.py").touch()
    (tmp_path / "theirs" / "folder.py").mkdir()
    (tmp_path / "theirs" / "gone.py").symlink_to("nowhere")
    assert code_of(nested, registry) == first


def test_where_a_package_lies_does_not_matter(module, registry, tmp_path, monkeypatch):
    first = code_of(specs(registry, loss=module.Theirs), registry)
    (tmp_path / "moved").mkdir()
    (tmp_path / "theirs").rename(tmp_path / "moved" / "theirs")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "moved" / "theirs" / "__init__.py"))
    assert code_of(specs(registry, loss=module.Theirs), registry) == first


def test_a_registry_knows_which_distribution_provides_a_component(registry):
    spec = registry.spec("quantizer", {"use": "vq"})
    assert registry.distribution(spec) == "robustok"
    assert registry_with().distribution(Spec(kind="quantizer", name="none", factory=Elsewhere, config=None)) == "?"
