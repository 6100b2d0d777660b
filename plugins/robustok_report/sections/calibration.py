"""How a generator errs, as figures: for the report, and for `robustok calibrate`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from robustok_core.values.numbers import number_text
from robustok_toolkit.calibration import DELTA_SHARE
from robustok_toolkit.rank_law import edges
from robustok_toolkit.report_parts import Lines, Part, Section, Series, Table, Text
from robustok_toolkit.reported_run import ReportedRun


def calibration(run: ReportedRun) -> Section | None:
    """The figures of each stage `calibrate`."""
    found: dict[str, Mapping[str, Mapping[str, Any]]] = {}
    for name, result in run.results.items():
        by_scale = result.details.get("by_scale")
        if name.endswith(("/changed", "/error_size")) and isinstance(by_scale, Mapping):
            found[name.rpartition("/")[0]] = by_scale
    parts = [part for stage, by_scale in found.items() for part in figures(by_scale, stage if len(found) > 1 else "")]
    why = "Which wrong tokens this generator draws, and whether a perturbation imitates them."
    return Section("Calibration", parts, why=why) if parts else None


def figures(by_scale: Mapping[str, Mapping[str, Any]], stage: str = "") -> list[Part]:
    """How a generator errs at each guidance scale, beside how a perturbation does.

    Args:
        by_scale: what the stage `calibrate` measured, by guidance scale: attributes of `Errors`, or, of vectors, those
            of `VectorErrors` by sigma.
        stage: its name, where the titles must tell it from another one.
    """
    of = f" ({stage})" if stage else ""
    return _of_codes(by_scale, of) if "shares" in next(iter(by_scale.values())) else _of_vectors(by_scale, of)


def _of_codes(by_scale: Mapping[str, Mapping[str, Any]], of: str) -> list[Part]:
    """The law of the ranks beside the paper's uniform delta, and the errors along the tokens."""
    laws = [Series(_name(scale), *_law(found["shares"])) for scale, found in by_scale.items()]
    ranks = Lines(
        f"Ranks of the generator's errors{of}",
        [*laws, Series(f"uniform δ, {100 * DELTA_SHARE:.1f} % of the codebook", *_uniform())],
        x="log₂(rank / K), 0 is the farthest code",
        y="errors up to this rank",
        markers=True,
    )
    changed = [Series(_name(scale), *_along(found["changed_by_position"])) for scale, found in by_scale.items()]
    far = [Series(_name(scale), *_along(_ranks(found))) for scale, found in by_scale.items()]
    across = "token, in the order of codes"
    return [
        Text(_words(*next(iter(by_scale.items())), of)),
        ranks,
        Lines(f"Draws that differ from the true code, by token{of}", changed, x=across, y="share"),
        Lines(f"Mean rank of the errors, by token{of}", far, x=across, y="rank over K, a gap if no draw differs"),
        Table(
            f"The law, as a recipe writes it{of}",
            ["guidance", "line"],
            [[scale, recipe_line(found["shares"])] for scale, found in by_scale.items()],
            code=True,
        ),
    ]


VECTOR_COLUMNS = ("guidance", "σ", "errors", "size")
#: What is said of the shape of errors of vectors, and its heading.
SHAPES = {
    "along_data": "along the data",
    "inflation": "variance",
    "neighbour_correlation": "adjacent",
    "largest_tenth": "largest tenth",
    "isotropy": "isotropy",
}


def vector_rows(scale: str, by_sigma: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Two rows for each sigma: the generator's errors, and independent noise of the same size."""
    rows = []
    for sigma, errors in by_sigma.items():
        for of, shape in (("made", errors["made"]), ("noise", errors["noise"])):
            numbers = ["–" if shape[name] is None else f"{shape[name]:.3g}" for name in SHAPES]
            rows.append([scale, sigma, of, f"{errors['size']:.3g}", *numbers])
    return rows


def _of_vectors(by_scale: Mapping[str, Mapping[str, Any]], of: str) -> list[Part]:
    """The size and the shape of the errors against sigma."""
    sizes = [
        Series(_name(scale), [float(sigma) for sigma in found], [errors["size"] for errors in found.values()])
        for scale, found in by_scale.items()
    ]
    rows = [row for scale, found in by_scale.items() for row in vector_rows(scale, found)]
    return [
        Text(
            "Latents that keep a share σ of held-out images', less those of the images, and independent noise of the "
            "same size. Where their numbers differ, training and measuring with such noise does not imitate this "
            "generator. Along the data: share of the errors' energy along the directions that hold half of the "
            "variance of real latents. Variance: of the latents with errors, over that of real ones. Adjacent: "
            "correlation of the errors of adjacent tokens. Largest tenth: share of the energy in a tenth of the "
            "tokens. Isotropy: 1 if all channels take part alike."
        ),
        Table(f"Errors of vectors{of}", [*VECTOR_COLUMNS, *SHAPES.values()], rows),
        Lines(f"Size of the errors{of}", sizes, x="σ", y="standard deviations of the image's tokens", markers=True),
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


def _ranks(found: Mapping[str, Any]) -> list[float]:
    """The mean rank at each token; a gap where no draw differs, for which earlier versions recorded 0."""
    pairs = zip(found["changed_by_position"], found["rank_by_position"], strict=True)
    return [rank if changed else math.nan for changed, rank in pairs]


def _words(scale: str, found: Mapping[str, Any], of: str) -> str:
    after = f"After the true codes, at guidance {scale}{of}"
    if not found["changed"]:
        return f"{after}, every draw is the true code: there are no errors to imitate."
    changed, rank, within = (number_text(100 * found[key], 3) for key in ("changed", "relative_rank", "within_delta"))
    return (
        f"{after}, {changed} % of the draws are another code. Of these, {within} % are among the nearest "
        f"{100 * DELTA_SHARE:.1f} % of the codebook, from which the paper's perturbation draws; the mean rank is "
        f"{rank} % of the codebook. A draw that differs is no mistake as such: several codes may go on "
        "an image equally well."
    )
