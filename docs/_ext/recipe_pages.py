"""The directive `recipes [FOLDER]`: each bundled recipe with its header, and its text behind a click."""

from __future__ import annotations

import re
from pathlib import Path

from component_options import placed
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from robustok_core.recipe.source import bundled_recipes

_FIELD = re.compile(r"^# (\w+): +(.*)$")


class Recipes(SphinxDirective):
    """A section for each recipe of a folder, or of none."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The sections, in alphabetical order."""
        folder = self.arguments[0] if self.arguments else ""
        found = {name: file for name, file in bundled_recipes().items() if name.rpartition("/")[0] == folder}
        return placed(self, [recipe_section(name, found[name]) for name in sorted(found)])


def recipe_section(name: str, file: Path) -> nodes.Node:
    """What the header of a recipe says, its command, and its whole text behind a click."""
    source = file.read_text(encoding="utf-8")
    section = nodes.section(ids=[f"recipe-{name.replace('/', '-')}"], names=[])
    section += nodes.title("", "", nodes.literal("", name))
    for title, written in header(source).items():
        if title == "Command":
            section += _block(written, "console")
        else:
            section += nodes.paragraph("", "", nodes.strong("", f"{title}: "), nodes.Text(" ".join(written.split())))
    section += nodes.raw("", "<details><summary>The recipe</summary>", format="html")
    section += _block(source, "toml")
    section += nodes.raw("", "</details>", format="html")
    return section


def header(source: str) -> dict[str, str]:
    """The fields of a recipe's header, "What: ..." and so on, with their lines."""
    fields: dict[str, str] = {}
    title = "What"
    for line in source.splitlines():
        if not line.startswith("#"):
            break
        if found := _FIELD.match(line):
            title = found[1]
            fields[title] = found[2]
        else:
            fields[title] = "\n".join([*filter(None, [fields.get(title)]), line.removeprefix("#").strip()])
    return fields


def _block(text: str, language: str) -> nodes.Node:
    return nodes.literal_block(text, text, language=language)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls when it loads this extension."""
    app.add_directive("recipes", Recipes)
    return {"parallel_read_safe": True}
