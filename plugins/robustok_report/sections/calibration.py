"""How a generator errs, as figures: for the report, and for `robustok calibrate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robustok_core.values.numbers import number_text
from robustok_toolkit.calibration import DELTA_SHARE
from robustok_toolkit.rank_law import edges
from robustok_toolkit.report_parts import Lines, Part, Section, Series, Table, Text
from robustok_toolkit.reported_run import ReportedRun


def calibration(run: ReportedRun) -> Section | None:
    """The figures of each stage `calibrate`."""
    parts: list[Part] = []
    for name, result in run.results.items():
        by_scale = result.details.get("by_scale")
        if name.endswith("/changed") and isinstance(by_scale, Mapping):
            parts += figures(by_scale)
    why = "Which wrong tokens this generator draws, and whether a perturbation of near neighbours imitates them."
    return Section("Calibration", parts, why=why) if parts else None


def figures(by_scale: Mapping[str, Mapping[str, Any]]) -> list[Part]:
    """The law of the ranks at each guidance scale beside the paper's uniform delta, and the errors along the tokens.

    Args:
        by_scale: what the stage `calibrate` measured, attributes of `Errors` by guidance scale.
    """
    laws = [Series(_name(scale), *_law(found["shares"])) for scale, found in by_scale.items()]
    ranks = Lines(
        "Ranks of the generator's errors",
        [*laws, Series(f"uniform δ, {100 * DELTA_SHARE:.1f} % of the codebook", *_uniform())],
        x="log₂(rank / K), 0 is the farthest code",
        y="errors up to this rank",
        markers=True,
    )
    changed = [Series(_name(scale), *_along(found["changed_by_position"])) for scale, found in by_scale.items()]
    far = [Series(_name(scale), *_along(found["rank_by_position"])) for scale, found in by_scale.items()]
    return [
        Text(_words(next(iter(by_scale.values())))),
        ranks,
        Lines("Draws that differ from the true code, by token", changed, x="token, in the order of codes", y="share"),
        Lines("Mean rank of the errors, by token", far, x="token, in the order of codes", y="rank over K"),
        Table(
            "The law, as a recipe writes it",
            ["guidance", "line"],
            [[scale, recipe_line(found["shares"])] for scale, found in by_scale.items()],
            code=True,
        ),
    ]


def recipe_line(shares: Sequence[float]) -> str:
    """The line of a recipe with the perturbation that draws from a law; of no errors, there is none."""
    if not any(shares):
        return "none: every draw is the true code"
    return f'perturbation = {{ use = "rank_law", shares = [{", ".join(f"{share:g}" for share in shares)}] }}'


def _name(scale: str) -> str:
    return f"guidance {scale}"


def _law(shares: Sequence[float]) -> tuple[list[float], list[float]]:
    """The bins' upper edges as powers of two, and the shares of the errors up to there."""
    total, up = 0.0, []
    for share in shares:
        total += share
        up.append(total)
    return [float(number + 1 - len(shares)) for number in range(len(shares))], up


def _uniform() -> tuple[list[float], list[float]]:
    return [float(number - 12) for number in range(13)], [min(1.0, edge / DELTA_SHARE) for edge in edges(13)[1:]]


def _along(values: Sequence[float]) -> tuple[list[float], list[float]]:
    return [float(number) for number in range(len(values))], list(values)


def _words(found: Mapping[str, Any]) -> str:
    if not found["changed"]:
        return "After the true codes, every draw is the true code: there are no errors to imitate."
    changed, rank, within = (number_text(100 * found[key], 3) for key in ("changed", "relative_rank", "within_delta"))
    return (
        f"After the true codes, {changed} % of the draws are another code. Of these, {within} % are among the nearest "
        f"{100 * DELTA_SHARE:.1f} % of the codebook, from which the paper's perturbation draws; the mean rank is "
        f"{rank} % of the codebook. A draw that differs is no mistake as such: several codes may go on "
        "an image equally well."
    )
