"""What the shell completes in commands: recipes, studies and runs, kinds of component and their names.

Files are completed, too. Nothing that takes longer than reading the entry points is done, but for `component_names`.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


class RecipeName(click.ParamType):
    """A bundled recipe, a run, or a file."""

    name = "recipe"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The bundled recipes that begin so, then files."""
        from robustok_core.recipe.source import bundled_recipes

        names = [name for name in sorted(bundled_recipes()) if name.startswith(incomplete)]
        return [*map(CompletionItem, names), CompletionItem(incomplete, type="file")]


class StudyName(click.ParamType):
    """A bundled study, or a file."""

    name = "study"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The bundled studies that begin so, with or without "study/" as they are typed, then files."""
        from robustok_core.recipe.source import STUDIES, bundled_studies

        typed = sorted(bundled_studies())
        if not incomplete.startswith(STUDIES):
            typed = [name.removeprefix(STUDIES) for name in typed]
        names = [name for name in typed if name.startswith(incomplete)]
        return [*map(CompletionItem, names), CompletionItem(incomplete, type="file")]


class KindName(click.ParamType):
    """A kind of component."""

    name = "kind"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The kinds that begin so."""
        from robustok_core.kinds import KINDS

        return [CompletionItem(kind) for kind in KINDS if kind.startswith(incomplete)]


RECIPE = RecipeName()
STUDY = StudyName()
KIND = KindName()


def component_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The components of the kind before it that begin so."""
    from robustok_core.recipe.registry import load_registry

    return [name for name in load_registry().names(ctx.params.get("kind") or "") if name.startswith(incomplete)]
