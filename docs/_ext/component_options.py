"""Directives that read recipes' options from the classes: `components KIND`, and `options MODULE:CLASS`."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from robustok_core import load_registry
from robustok_core.recipe.options import Option, options_of


class Components(SphinxDirective):
    """A section for each component of a kind: its docstring, and its options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The sections, in the order of the registry."""
        (kind,) = self.arguments
        return placed(self, [self._section(kind, entry) for entry in load_registry().entries(kind)])

    def _section(self, kind: str, entry) -> nodes.Node:
        anchor = f"{kind}-{entry.name}"
        labels = self.env.domains.standard_domain
        labels.anonlabels[anchor] = (self.env.docname, anchor)
        labels.labels[anchor] = (self.env.docname, anchor, entry.name)  # pages link to #KIND-NAME
        section = nodes.section(ids=[anchor], names=[])
        section += nodes.title("", "", nodes.literal("", entry.name))
        section += docstring(entry.factory)
        section += option_list(anchor, options_of(entry.factory.Config))
        if sampling := tuple(options_of(entry.factory.Sampling)) if hasattr(entry.factory, "Sampling") else ():
            section += nodes.paragraph("", "", *text("Options of its sampler (`sampling` in stages):"))
            section += option_list(f"{anchor}-sampling", sampling)
        section += nodes.paragraph("", f"From {entry.plugin}.", classes=["provider"])
        return section


class Options(SphinxDirective):
    """The options of one configuration class, which a recipe may also have outside of components."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The list of options."""
        module, _, name = self.arguments[0].partition(":")
        options = options_of(getattr(importlib.import_module(module), name))
        return placed(self, option_list(f"option-{name}", options))


def placed(directive: SphinxDirective, made: list[nodes.Node]) -> list[nodes.Node]:
    """Nodes that a directive made, with the place that Sphinx names in messages."""
    for node in (inner for outer in made for inner in outer.findall()):
        node.source, node.line = directive.get_source_info()
    return made


def option_list(above: str, options: Iterable[Option]) -> list[nodes.Node]:
    """A definition list of options, each with an anchor below `above`."""
    items = [_item(above, option) for option in options]
    if not items:
        return [nodes.paragraph("", "It has no options.")]
    return [nodes.definition_list("", *items, classes=["options"])]


def _item(above: str, option: Option) -> nodes.Node:
    anchor = f"{above}-{option.name}"
    term = nodes.term("", "", nodes.literal("", option.name), ids=[anchor])
    classifiers = [nodes.classifier("", "", *text(part)) for part in (option.wanted, option.default)]
    meaning = nodes.definition("", nodes.paragraph("", "", *text(option.doc)))
    if option.nested:
        meaning += option_list(anchor, option.nested)
    return nodes.definition_list_item("", term, *classifiers, meaning)


def docstring(documented: type) -> list[nodes.Node]:
    """A docstring as paragraphs; a section of it, such as "Raises:", as it is written."""
    found: list[nodes.Node] = []
    for part in re.split(r"\n\n+", inspect.getdoc(documented) or ""):
        is_plain = not any(line.startswith("    ") for line in part.splitlines())
        found.append(nodes.paragraph("", "", *text(part)) if is_plain else nodes.literal_block(part, part))
    return found


def text(written: str) -> Iterator[nodes.Node]:
    """Text whose names are in backticks, one or two."""
    for number, part in enumerate(re.split(r"`+([^`]+)`+", written)):
        if part:
            yield nodes.literal("", part) if number % 2 else nodes.Text(part.replace("\n", " "))


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls when it loads this extension."""
    app.add_directive("components", Components)
    app.add_directive("options", Options)
    return {"parallel_read_safe": True}
