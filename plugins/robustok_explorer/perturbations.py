"""Which perturbations the page offers, and from where to where their strengths go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from attrs import frozen

from robustok_core.errors import RobustokError
from robustok_core.values.spec import Spec
from robustok_explorer.opened_run import OpenedRun
from robustok_explorer.views import STRENGTHS

#: delta goes no further on the page, unless the run's does; `--set` takes any.
_MOST_NEIGHBOURS = 4096


@frozen(kw_only=True)
class Strength:
    """An option that a slider sets."""

    value: float
    most: float
    step: float


@frozen(kw_only=True)
class Offered:
    """A perturbation that changes latents of the run's space.

    Attributes:
        table: it with `use`, so that it perturbs every image and does not weaken; of the run's own, all its options.
        strengths: the options that sliders set.
    """

    table: Mapping[str, Any]
    strengths: Mapping[str, Strength]


def offered_by(run: OpenedRun) -> dict[str, Offered]:
    """The perturbations that fit the run's latents, by name: its own, and those with a strength and no needed option.

    The first one is what the run is shown with: its own, unless `why_not_own` says why it cannot be.
    """
    found = {}
    try:
        own = _own(run)
        found[own.table["use"]] = own
    except RobustokError:
        pass
    for name in run.registry.names("perturbation"):
        if name not in found and (other := _by_strengths(run, name)) is not None:
            found[name] = other
    return found


def own_perturbation(run: OpenedRun) -> dict[str, Any]:
    """The table of the perturbation that the run is shown with: the first that is offered."""
    return dict(next((each.table for each in offered_by(run).values()), {"use": "none"}))


def why_not_own(run: OpenedRun) -> str | None:
    """What takes the place of the run's own perturbation and why, as a sentence; None if nothing does."""
    try:
        _own(run)
    except RobustokError as error:
        use, why = own_perturbation(run)["use"], "; ".join(problem.placed for problem in error.problems)
        return f"{use} with its defaults takes the place of the run's own perturbation: {why}."
    return None


def _own(run: OpenedRun) -> Offered:
    """The run's perturbation.

    Raises:
        RobustokError: it has none, or that cannot be built here, or does not fit the latents.
    """
    table = run.recipe.get("perturbation")
    if table is None:
        raise RobustokError("its recipe has no [perturbation]")
    if table.get("use") == "none":
        raise RobustokError('its recipe has perturbation "none", which changes nothing')
    return _offered(run, table)


def _by_strengths(run: OpenedRun, name: str) -> Offered | None:
    """A perturbation as its strengths alone make it, or None."""
    try:
        found = _offered(run, {"use": name})
        strengths = {option: strength.value for option, strength in found.strengths.items()}
        return attrs.evolve(found, table={"use": name, **strengths}) if strengths else None
    except RobustokError:
        return None


def _offered(run: OpenedRun, given: Mapping[str, Any]) -> Offered:
    """A perturbation with the options that are given, at the start of the training.

    Raises:
        RobustokError: it needs other options, or does not fit the latents.
    """
    table = {name: value for name, value in given.items() if name not in ("beta", "anneal")}
    kind = run.registry.classes("perturbation").get(str(table.get("use")))
    if kind is not None and "beta" in attrs.fields_dict(kind.Config):
        table["beta"] = 1.0
    spec = run.registry.spec("perturbation", table)
    strengths = {}
    for option in (option.name for option in attrs.fields(type(spec.config)) if option.name in STRENGTHS):
        value = getattr(spec.config, option)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            strengths[option] = _strength(run, spec, option, given=option in table)
    at = {option: strength.value for option, strength in strengths.items()}
    run.registry.build("perturbation", table | at).check(run.tokenizer.tokenizer.space, 1)
    return Offered(table=table, strengths=strengths)


def _strength(run: OpenedRun, spec: Spec, option: str, *, given: bool) -> Strength:
    """Where a strength goes; a value that is given stays as it is, a default fits the codebook."""
    value, size = getattr(spec.config, option), run.tokenizer.tokenizer.space.codebook_size or 1
    whole = isinstance(value, int)
    most = min(size, _MOST_NEIGHBOURS) if whole else 2.0 if _accepts(spec, option, 2.0) else 1.0
    most = max(most, value) if given else most
    return Strength(value=min(value, most), most=most, step=1 if whole else 0.05)


def _accepts(spec: Spec, option: str, value: float) -> bool:
    try:
        attrs.evolve(spec.config, **{option: value})
    except (ValueError, TypeError):
        return False
    return True
