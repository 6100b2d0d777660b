"""What post-training changed: numbers, samples before and after, and images along sigma.

Images along sigma need the generator and the post-trainer, so `compare_decoders` draws them. Samples are cheap to
decode again from their latents, so the report does this with both decoders, and finds what changed most and least.
"""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import numpy as np

from robustok_core.errors import RobustokError
from robustok_core.values.numbers import number_text
from robustok_core.values.result import Result
from robustok_report.meanings import meaning_of
from robustok_report.sections.numbers import OF_DECODER
from robustok_report.sections.reconstructions import as_pixels, seeded_rows
from robustok_report.sections.samples import latents_of
from robustok_toolkit.latent_arrays import from_array
from robustok_toolkit.pictures import read_rows
from robustok_toolkit.report_parts import BeforeAfter, Cell, Part, Pictures, Pixels, Section, Table, Text
from robustok_toolkit.reported_run import ReportedRun
from robustok_toolkit.trained_tokenizer import TrainedTokenizer

#: Samples that are decoded twice, and how many are shown of those that changed most and least.
_DECODED, _DECODED_LARGE, _LARGE, _SHOWN = 200, 40, 64, 6
#: What earlier versions called the artifact with the pictures.
_PICTURES = ("comparison", "post_training")


def post_training(run: ReportedRun) -> Section | None:
    """The comparison of decoders, where the run made one."""
    compared = _compared(run)
    made = [stage for stage in run.stages for name in stage.entry.get("makes", []) if name in _PICTURES and stage.done]
    if not made:
        return None
    parts: list[Part] = [*_table(compared), *_before_after(run), *_along_sigma(run)]
    why = "The same latents through the decoder before and after; a control was trained as long, on clean latents."
    return Section("Post-training", parts, why=why)


def _compared(run: ReportedRun) -> dict[str, dict[str, Result]]:
    """Results by metric, with its stage and whether samples are guided, and by decoder."""
    found: dict[str, dict[str, Result]] = {}
    for name, result in run.results.items():
        metric = name.partition("/")[2]
        if (match := OF_DECODER.fullmatch(metric)) is not None:
            decoder, guided, what = match.groups()
            meaning = meaning_of(what)
            label = meaning.name + (", guided" if guided else "") + (f" [{meaning.unit}]" if meaning.unit else "")
            found.setdefault(label, {})[decoder] = attrs.evolve(result, value=result.value * meaning.factor)
    return found


def _table(compared: dict[str, dict[str, Result]]) -> list[Part]:
    if not compared:
        return []
    decoders = list(dict.fromkeys(decoder for results in compared.values() for decoder in results))
    heads = [_decoder_name(decoder) for decoder in decoders]
    rows: list[list[str | Cell]] = [
        [metric, *(_cell(results, decoder) for decoder in decoders)] for metric, results in compared.items()
    ]
    return [Table("Decoders compared", ["number", *heads], rows)]


def _decoder_name(decoder: str) -> str:
    if decoder == "before":
        return "before"
    sigma = decoder.removeprefix("sigma")
    return "σ = 1 (control)" if float(sigma) == 1 else f"σ = {sigma}"


def _cell(results: dict[str, Result], decoder: str) -> Cell:
    """A result, its change, and a mark where it is the best of its row."""
    if (result := results.get(decoder)) is None:
        return Cell("–")
    before = results.get("before")
    change = "" if before is None or decoder == "before" else f"{result.value - before.value:+.3g}"
    best = {True: max, False: min}.get(result.higher_is_better)  # type: ignore[arg-type]
    marked = best is not None and result.value == best(other.value for other in results.values()) and len(results) > 1
    return Cell(number_text(result.value, 4), hint=change.replace("-", "−"), marked=marked)


def _before_after(run: ReportedRun) -> list[Part]:
    tokenizers = run.tokenizers
    if len(tokenizers) < 2:
        return []
    folder = run.artifact("samples")
    latents = latents_of(folder)
    size = tokenizers[0].tokenizer.image_size
    rows = seeded_rows(_DECODED if size <= _LARGE else _DECODED_LARGE, len(latents))
    before, after = (_decoded(tokenizer, latents[rows]) for tokenizer in tokenizers[-2:])
    change = [float(np.abs(a.astype(float) - b.astype(float)).mean()) for a, b in zip(before, after, strict=True)]
    order = np.argsort(change, kind="stable").tolist()
    chosen = {
        f"changed most (mean {_mean(change, order[-_SHOWN:])} of 255 levels)": order[::-1][:_SHOWN],
        f"changed least (mean {_mean(change, order[:_SHOWN])})": order[:_SHOWN],
    }
    return [
        BeforeAfter(
            f"Samples before and after post-training, of {len(rows)}",
            {label: [before[row] for row in rows] for label, rows in chosen.items()},
            {label: [after[row] for row in rows] for label, rows in chosen.items()},
            ("before post-training", "after post-training"),
        )
    ]


def _mean(change: list[float], rows: list[int]) -> str:
    return number_text(sum(change[row] for row in rows) / len(rows), 2)


def _decoded(tokenizer: TrainedTokenizer, latents: np.ndarray) -> list[Pixels]:
    held = from_array(np.asarray(latents), tokenizer.tokenizer.space, "samples")
    return [picture for batch in tokenizer.decoded(held) for picture in as_pixels(batch)]


def _along_sigma(run: ReportedRun) -> list[Part]:
    file = _picture(run)
    try:
        rows = read_rows(file)
    except RobustokError as error:
        return [Text(f"The images along σ cannot be shown: {error}", muted=True)]
    pattern = re.compile(r"sigma([0-9.]+), (before|after)")
    order = sorted(rows, key=lambda name: (0, "", 0.0) if name == "real" else _place(pattern.fullmatch(name)))
    named = {_row_name(name): rows[name] for name in order}
    legend = (
        "A generator keeps a share σ of a real image's tokens and replaces the others: these are the pairs that "
        "post-training learns from, decoded before and after it."
    )
    return [Pictures("Images along σ", named), Text(legend, muted=True)]


def _picture(run: ReportedRun) -> Path:
    name = next(one for one in _PICTURES if any(one in stage.entry.get("makes", []) for stage in run.stages))
    return run.artifact(name) / "sigma.png"


def _place(match: re.Match[str] | None) -> tuple[int, str, float]:
    return (2, "", 0.0) if match is None else (1, {"before": "a", "after": "b"}[match[2]], -float(match[1]))


def _row_name(name: str) -> str:
    return re.sub(r"sigma([0-9.]+), ", r"σ = \1, ", name)
