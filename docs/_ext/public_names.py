"""Directives that find what is public by themselves: `public-names GROUP`, and `hooks`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import robustok
import robustok_core
import robustok_training
from robustok_core.recipe import hookspecs


class PublicNames(SphinxDirective):
    """The public names of a part of the core (`kinds`, `values`, ...), of the `face`, or of `training`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """What autodoc makes of the names."""
        (group,) = self.arguments
        return self.parse_text_to_nodes(rest(names_in(group)))


class Hooks(SphinxDirective):
    """Every hook, with its arguments."""

    def run(self) -> list[nodes.Node]:
        """What autodoc makes of the hooks."""
        return self.parse_text_to_nodes(rest(f"{hookspecs.__name__}.{name}" for name in hooks()))


def names_in(group: str) -> list[str]:
    """The full names of a group, in alphabetical order."""
    if group == "face":
        return [f"robustok.{name}" for name in sorted(set(robustok.__all__) - set(robustok_core.__all__))]
    if group == "training":
        return [f"robustok_training.{name}" for name in sorted(robustok_training.__all__)]
    modules = {module: names for module, names in robustok_core._WHERE.items() if module.split(".")[0] == group}
    return sorted(f"robustok.{name}" for names in modules.values() for name in names)


def hooks() -> list[str]:
    """The names of the hooks, as they are declared."""
    return [name for name, value in vars(hookspecs).items() if hasattr(value, "robustok_spec")]


def rest(names: Iterable[str]) -> str:
    """The directives of autodoc that document these names."""
    return "\n\n".join(_directive(name) for name in names)


def _directive(full: str) -> str:
    module, _, name = full.rpartition(".")
    found = getattr(__import__(module, fromlist=[name]), name)
    if inspect.isclass(found):
        return f".. autoclass:: {full}\n   :members:"
    return f".. autofunction:: {full}" if inspect.isfunction(found) else f".. autodata:: {full}\n   :no-value:"


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls when it loads this extension."""
    app.add_directive("public-names", PublicNames)
    app.add_directive("hooks", Hooks)
    return {"parallel_read_safe": True}
