"""What the page shows for the values of its controls: the images of a view and its code, as HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from robustok_core.errors import RobustokError
from robustok_core.recipe.source import parse_override
from robustok_explorer import drawing, snippets
from robustok_explorer.drawing import Sheet
from robustok_explorer.markup import message_html, sheet_html, snippets_html
from robustok_explorer.opened_run import OpenedRun
from robustok_explorer.perturbations import own_perturbation, why_not_own
from robustok_explorer.snippets import Snippets
from robustok_explorer.views import VIEWS, Sample, settings_of


@frozen(kw_only=True)
class Kind:
    """A view: its settings, and the functions that draw it and write it as code."""

    settings: type
    draw: Callable[[OpenedRun, Any], Sheet]
    code: Callable[[OpenedRun, Any], Snippets]


KINDS: Mapping[str, Kind] = {
    "perturb": Kind(settings=VIEWS["perturb"], draw=drawing.perturb, code=snippets.of_perturb),
    "keep": Kind(settings=VIEWS["keep"], draw=drawing.keep, code=snippets.of_keep),
    "paint": Kind(settings=VIEWS["paint"], draw=drawing.paint, code=snippets.of_paint),
    "neighbours": Kind(settings=VIEWS["neighbours"], draw=drawing.neighbours, code=snippets.of_neighbours),
    "sample": Kind(settings=Sample, draw=drawing.sample, code=snippets.of_sample),
}


def drawn(run: OpenedRun, view: str, changes: Any) -> tuple[Sheet, Snippets]:
    """The images of a view and its code.

    Args:
        run: what is drawn. view: a name of `KINDS`.
        changes: settings by dotted path, or as `--set` takes them.

    Raises:
        RobustokError: all mistakes in the settings, or what the run does not have.
    """
    kind = KINDS[view]
    settings: Any = settings_of(kind.settings, changes, run.registry, own_perturbation(run))
    return kind.draw(run, settings), kind.code(run, settings)


def replaced(run: OpenedRun, view: str, changes: Sequence[str]) -> str | None:
    """What is drawn in place of the run's own perturbation and why; None if it is, or one is named in the changes.

    Args:
        view, changes: see `drawn`.

    Raises:
        RobustokError: a change is not KEY=VALUE.
    """
    named = {parse_override(change)[0] for change in changes} & {"perturbation", "perturbation.use"}
    return None if view != "perturb" or named else why_not_own(run)


def answer(run: OpenedRun, view: str, changes: Mapping[str, Any]) -> tuple[str, str]:
    """A view's images and its code as HTML; where it cannot be drawn, why, and nothing."""
    try:
        sheet, code = drawn(run, view, {name: value for name, value in changes.items() if value is not None})
    except RobustokError as error:
        return message_html(error), ""
    return sheet_html(sheet), snippets_html(code)
