"""Whose code a module is."""

from __future__ import annotations

from pathlib import Path

import pytest

import robustok_core
from robustok_core.values.distributions import is_ours, owner_of, plugin_packages

INSTALLED = {
    "module": "fog",
    "attribute": "mist:plugin",
    "below": "haze.plugin:Plugin",
    "named like ours": "robustok_mine",
}


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plugins of somebody else, of which only the metadata are installed."""
    about = tmp_path / "their_own-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-own\nVersion: 1\n")
    lines = [f"{name.replace(' ', '_')} = {value}" for name, value in INSTALLED.items()]
    (about / "entry_points.txt").write_text("\n".join(["[robustok]", *lines[1:], "[robustok.commands]", lines[0]]))
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("module", ["fog.a.b", "mist", "haze.plugin", "robustok_mine.losses"])
def test_a_plugin_of_somebody_else_is_known_however_its_entry_point_is_written(plugins: None, module: str) -> None:
    assert owner_of(module) == "the plugin their-own"
    assert plugin_packages()[module.split(".", maxsplit=1)[0]] == "their-own"
    assert not is_ours(module)


def test_a_module_that_no_plugin_registers_is_nobodys_but_its_own() -> None:
    assert owner_of("robustok_other.losses") == "the module robustok_other.losses"
    assert not is_ours("robustok_other.losses")


def test_all_our_packages_are_ours() -> None:
    root = Path(robustok_core.__file__).parents[1]
    packages = [root / "robustok_core", *(root / "plugins").glob("robustok*/")]
    assert [package.name for package in packages if not is_ours(f"{package.name}.anything")] == []
