"""Every number and picture on the page is the run's."""

from __future__ import annotations

import json

import numpy as np
import pytest

from project import CODEBOOK_SIZE, NUM_SAMPLES
from report_pages import figures_of, rows_of
from robustok_core.runs.files import read_json
from robustok_core.runs.results import read_results
from robustok_core.values.numbers import number_text
from robustok_report.embedding import data_uri
from robustok_toolkit.latent_arrays import from_array
from robustok_toolkit.latent_files import LatentRows


@pytest.fixture(scope="module")
def results(complete):
    return read_results(complete.folder)


@pytest.fixture(scope="module")
def figures(page):
    return figures_of(page)


def trace(figures, title):
    (only,) = figures[title]["data"]
    return only


def test_the_heat_map_has_the_cells_of_the_result(figures, results):
    cells = results["evaluate_tokenizer/pfd_fashion_classifier"].details["cells"]
    drawn = trace(figures, "pFD by strength")
    shown = {
        f"alpha{row}_delta{column}": value
        for row, values in zip(drawn["y"], drawn["z"], strict=True)
        for column, value in zip(drawn["x"], values, strict=True)
    }
    assert shown == cells


def test_the_curve_of_the_latent_mmd_has_its_values_and_marks_the_smallest(figures, results):
    result = results["latent_mmd/latent_mmd"]
    drawn = trace(figures, "Distance of perturbed latents to generated latents")
    assert dict(zip(drawn["x"], drawn["y"], strict=True)) == {
        float(alpha): value for alpha, value in result.details["by_alpha"].items()
    }
    assert min(drawn["y"]) == result.value
    marked = figures["Distance of perturbed latents to generated latents"]["layout"]["shapes"][0]["x0"]
    assert marked == results["latent_mmd/suggested_alpha"].value


def test_the_sweep_has_the_result_of_each_guidance_scale(figures, results):
    drawn = trace(figures, "gFD over guidance")
    measured = [results[f"{stage}/gfd_fashion_classifier"].value for stage in ("evaluate_generator", "evaluate_guided")]
    assert (drawn["x"], drawn["y"]) == ([1.0, 2.0], measured)


def test_the_usage_is_that_of_the_codes_of_the_training_images(complete, figures):
    rows = LatentRows(complete.artifact("latents"), "train")
    counts = np.bincount(rows.load(range(len(rows))).latents.codes.numpy().ravel(), minlength=CODEBOOK_SIZE)
    drawn = trace(figures, "Usage of the codes")
    assert drawn["y"] == pytest.approx((np.sort(counts)[::-1] / counts.sum() * 100).tolist())
    placed = trace(figures, "Codewords, by t-SNE")
    assert placed["text"] == [f"code {code}: {count:,} times" for code, count in enumerate(counts)]


def test_the_curves_are_those_of_the_log(complete, figures):
    lines = [json.loads(line) for line in (complete.folder / "metrics.jsonl").read_text().splitlines()]
    logged = [(line["step"], line["tokenizer/loss"]) for line in lines if line["stage"] == "train_tokenizer"]
    drawn = next(one for one in figures["train_tokenizer: Loss"]["data"] if one["name"] == "tokenizer/loss")
    assert list(zip(drawn["x"], drawn["y"], strict=True)) == logged


def test_the_table_of_decoders_has_every_result_of_every_decoder(page, results):
    """Samples, guided samples, reconstructions and pairs stand in rows of their own."""
    stage = "compare_decoders/"
    compared = {name.removeprefix(stage): one.value for name, one in results.items() if name.startswith(stage)}
    decoders = ("before", "sigma0.5", "sigma1")
    rows = rows_of(page, "Decoders compared")
    for head, metric in {
        "gFD ↓": "{}_gfd_fashion_classifier",
        "gFD, guided samples ↓": "{}_guided_gfd_fashion_classifier",
        "PSNR [dB] ↑": "{}_psnr",
        "PSNR, pairs of σ = 0.5 [dB] ↑": "{}_on_sigma0.5_psnr",
    }.items():
        measured = {metric.format(decoder): compared.pop(metric.format(decoder)) for decoder in decoders}
        assert sorted(rows[head]) == sorted(number_text(value, 4) for value in measured.values())
    left = [name for name in compared if name.startswith(decoders)]
    assert left == [], "the page shows each of them, or this test does not know of them"


def test_no_result_of_a_decoder_stands_among_the_others(page):
    assert not [name for name in rows_of(page, "Measured") if "sigma" in name or "before" in name]


def test_the_samples_are_the_run_s_and_those_before_and_after_are_decoded_from_its_latents(page, as_reported):
    folder = as_reported.artifact("samples")
    with np.load(folder / "samples.npz") as stored:
        images = stored["arr_0"]
    shown = [data_uri(image) in page for image in images]
    assert all(shown), "two or three of each class are all there are"
    before, after = as_reported.tokenizers
    latents = from_array(np.load(folder / "codes.npy"), before.tokenizer.space, "samples")
    changed = []
    for tokenizer in (before, after):
        decoded = np.concatenate([batch.permute(0, 2, 3, 1).numpy() for batch in tokenizer.decoded(latents)])
        changed.append(decoded.astype(float))
    most = np.abs(changed[0] - changed[1]).mean(axis=(1, 2, 3)).argmax()
    for decoded in changed:
        assert data_uri(decoded[most].astype(np.uint8)) in page


def test_tiles_are_of_the_first_stage_that_measured_a_number(page, results):
    """The number at guidance 2 comes later, and must not stand in the place of the usual one."""
    value = number_text(results["evaluate_generator/gfd_fashion_classifier"].value, 4)
    assert f"<dt>gFD</dt><dd>{value}<small>lower is better ↓, {NUM_SAMPLES} images, evaluate_<wbr>generator/" in page


def test_each_number_says_of_how_many_images_it_is(page, results):
    assert rows_of(page, "Measured")["PSNR"][1] == str(results["evaluate_tokenizer/psnr"].details["num_images"])


def test_the_seed_and_the_times_are_those_of_the_record(complete, page):
    record = read_json(complete.folder / "run.json")
    assert rows_of(page, "Origin")["Seed"] == [str(record["seed"])]
