"""docs/published_models.md has a section for every importer: what it keeps, drops and assumes, and the licence."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import attrs
import pytest

from robustok_core import load_registry

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "published_models.md").read_text(encoding="utf-8")
#: Importers that read formats: `auto` only chooses another one.
IMPORTERS = {entry.name: entry.factory for entry in load_registry().entries("importer") if entry.name != "auto"}


def section(importer: str) -> str:
    """The text of an importer's section."""
    found = re.search(rf"^### `{importer}`$(.*?)(?=^#|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert found, f"docs/published_models.md has no section ### `{importer}`"
    return found[1]


@pytest.mark.parametrize("importer", IMPORTERS)
def test_every_importer_has_its_section(importer):
    items = re.findall(r"^- \*\*(\w+)\*\*: \S", section(importer), flags=re.MULTILINE)
    assert items == ["Files", "Keeps", "Drops", "Assumes", "Licence"]


@pytest.mark.parametrize("importer", IMPORTERS)
def test_a_section_names_every_option_that_does_not_follow_from_the_weights(importer):
    options = [option.name for option in attrs.fields(IMPORTERS[importer].Config)]
    assert [option for option in options if f"`{option}`" not in section(importer)] == []


@pytest.mark.parametrize("importer", IMPORTERS)
def test_a_section_names_the_component_that_its_importer_makes(importer):
    made = set(re.findall(r'"use": "(\w+)"', inspect.getsource(inspect.getmodule(IMPORTERS[importer]))))
    tables = made & {*load_registry().names("tokenizer"), *load_registry().names("generator")}
    assert all(f"`{name}`" in section(importer) for name in tables)


def test_the_readme_links_the_page():
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert "(docs/published_models.md)" in readme
