"""What post-training changed: numbers, samples before and after, and images along sigma.

Images along sigma need the generator and the post-trainer, so `compare_decoders` draws them. Samples are cheap to
decode again from their latents, so the report does this with both decoders, and finds what changed most and least.
"""

from __future__ import annotations

import math
import re
from functools import partial
from pathlib import Path

import attrs
import numpy as np
from attrs import frozen

from robustok_core.values.numbers import number_text
from robustok_core.values.result import Result
from robustok_report.made_sections import made_parts
from robustok_report.meanings import meaning_of, of_decoder
from robustok_report.sections.numbers import images_of
from robustok_report.sections.reconstructions import as_pixels, spread_rows
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
    parts: list[Part] = [
        *_table(compared),
        *made_parts(partial(_before_after, run), "the samples before and after post-training", run.missing),
        *made_parts(partial(_along_sigma, run), "the images along σ", run.missing),
    ]
    why = "The same latents through the decoder before and after; a control was trained as long, on pairs of σ = 1."
    return Section("Post-training", parts, why=why)


@frozen
class _Row:
    """What was measured of each decoder alike: the stage, the metric, and on what."""

    stage: str
    metric: str
    of: str


def _compared(run: ReportedRun) -> dict[_Row, dict[str, Result]]:
    """Results by what was measured, and by the decoder's name for people."""
    found: dict[_Row, dict[str, Result]] = {}
    for name, result in run.results.items():
        stage, _, metric = name.partition("/")
        if (one := of_decoder(metric)) is not None:
            in_unit = attrs.evolve(result, value=result.value * meaning_of(one.metric).factor)
            found.setdefault(_Row(stage, one.metric, one.of), {})[one.decoder_name] = in_unit
    return found


def _table(compared: dict[_Row, dict[str, Result]]) -> list[Part]:
    if not compared:
        return []
    decoders = list(dict.fromkeys(decoder for results in compared.values() for decoder in results))
    rows: list[list[str | Cell]] = [
        [_head(row, results), *(_cell(results, decoder) for decoder in decoders)] for row, results in compared.items()
    ]
    legend = "Below each number is its change from before. The best of a row is marked; it may be best by chance."
    return [Table("Decoders compared", ["number", *decoders], rows), Text(legend, muted=True)]


def _head(row: _Row, results: dict[str, Result]) -> Cell:
    meaning, one = meaning_of(row.metric), next(iter(results.values()))
    unit = f" [{meaning.unit}]" if meaning.unit else ""
    arrow = {True: " ↑", False: " ↓"}.get(one.higher_is_better, "")  # type: ignore[arg-type]
    counts = {count for result in results.values() if (count := images_of(result)) is not None}
    images = f", {' or '.join(f'{count:,}' for count in sorted(counts))} images" if counts else ""
    name = ", ".join(filter(None, [meaning.name, row.of]))
    return Cell(f"{name}{unit}{arrow}", hint=f"{row.stage}/{row.metric}{images}")


def _cell(results: dict[str, Result], decoder: str) -> Cell:
    """A result, its change, and a mark where it is the best of its row."""
    if (result := results.get(decoder)) is None:
        return Cell("–")
    before = results.get("before")
    change = "" if before is None or decoder == "before" else f"{result.value - before.value:+.3g}"
    return Cell(number_text(result.value, 4), hint=change.replace("-", "−"), marked=result is _best(results))


def _best(results: dict[str, Result]) -> Result | None:
    """The result that is better than all others, if they were measured alike."""
    direction = {result.higher_is_better for result in results.values()}
    counts = {(images_of(result), result.num_reference) for result in results.values()}
    if len(results) < 2 or len(counts) > 1 or direction - {True, False}:
        return None
    best = (max if True in direction else min)(results.values(), key=lambda result: result.value)
    alone = sum(result.value == best.value for result in results.values()) == 1
    return best if alone and math.isfinite(best.value) else None


def _before_after(run: ReportedRun) -> list[Part]:
    tokenizers = run.tokenizers
    if len(tokenizers) < 2:
        return []
    folder = run.artifact("samples")
    latents = latents_of(folder)
    size = tokenizers[0].tokenizer.image_size
    rows = spread_rows(_DECODED if size <= _LARGE else _DECODED_LARGE, len(latents))
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
    rows = read_rows(_picture(run))
    pattern = re.compile(r"sigma([0-9.]+), (before|after)")
    order = sorted(rows, key=lambda name: (0, "", 0.0) if name == "real" else _place(pattern.fullmatch(name)))
    named = {_row_name(name): rows[name] for name in order}
    legend = (
        "Latents that keep a share σ of a real image's, as the pairs do that post-training learns from, decoded before "
        "and after it."
    )
    return [Pictures("Images along σ", named), Text(legend, muted=True)]


def _picture(run: ReportedRun) -> Path:
    name = next(one for one in _PICTURES if any(one in stage.entry.get("makes", []) for stage in run.stages))
    return run.artifact(name) / "sigma.png"


def _place(match: re.Match[str] | None) -> tuple[int, str, float]:
    return (2, "", 0.0) if match is None else (1, {"before": "a", "after": "b"}[match[2]], -float(match[1]))


def _row_name(name: str) -> str:
    return re.sub(r"sigma([0-9.]+), ", r"σ = \1, ", name)
