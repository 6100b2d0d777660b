"""What numbers are called."""

from __future__ import annotations

import pytest

from robustok_report.meanings import frechet_of, meaning_of, of_decoder


@pytest.mark.parametrize(
    ("metric", "parts"),
    [
        ("before_psnr", ("before", "psnr", "", "before")),
        ("sigma1_colour_error", ("sigma1", "colour_error", "", "σ = 1 (control)")),
        ("sigma0.9_guided_gfd_a", ("sigma0.9", "gfd_a", "guided samples", "σ = 0.9")),
        ("sigma0.8_on_sigma0.95_psnr", ("sigma0.8", "psnr", "pairs of σ = 0.95", "σ = 0.8")),
    ],
)
def test_results_of_compare_decoders_are_taken_apart(metric, parts):
    of = of_decoder(metric)
    assert (of.decoder, of.metric, of.of, of.decoder_name) == parts


@pytest.mark.parametrize("metric", ["psnr", "kept_sigma", "changed_sigma0.9", "gfd_before"])
def test_other_results_are_of_no_decoder(metric):
    assert of_decoder(metric) is None


def test_a_result_of_a_decoder_has_the_meaning_of_its_metric():
    """A comparison of runs shows it in a row of its own."""
    meaning = meaning_of("sigma0.8_on_sigma0.8_psnr")
    assert (meaning.name, meaning.unit) == ("PSNR, pairs of σ = 0.8, σ = 0.8", "dB")
    assert meaning.what == meaning_of("psnr").what


@pytest.mark.parametrize(
    ("metric", "of"),
    [
        ("rfid", "r"), ("rfd_a", "r"), ("pfid", "p"), ("pfd_a", "p"), ("noise_pfd_a", "p"), ("rank_pfd_a", "p"),
        ("gfd_a", "g"), ("psnr", None), ("before_gfd_a", None), ("recall_a", None),
    ],
)  # fmt: skip
def test_frechet_distances_are_known_by_what_they_are_of(metric, of):
    assert frechet_of(metric) == of


NAMES = ["cmmd", "fdr6", "gsfid", "ifid", "mind", "rsfid"]
IN_FEATURES = ["coverage", "density", "fd_val", "fdr", "ifd", "ifd_mask", "md", "mmd"]
GAPS = ["gap", "gap_codes", "gap_decoder", "gap_reconstruction"]
EVERY = [*NAMES, *(f"{name}_dinov2" for name in IN_FEATURES), *(f"{gap}_gfid" for gap in GAPS)]


@pytest.mark.parametrize("name", EVERY)
def test_a_number_is_named_and_explained(name: str) -> None:
    meaning = meaning_of(name)
    assert meaning.what
    assert meaning.why
    assert "{" not in meaning.what


def test_names_that_begin_alike_have_meanings_of_their_own() -> None:
    assert len({meaning_of(f"{gap}_gfid").name for gap in GAPS}) == len(GAPS)
    assert len({meaning_of(name).name for name in ("kid", "mind", "md_x", "cmmd", "mmd_x", "gsfid", "gfid")}) == 7


@pytest.mark.parametrize("sigma", ["0.9", "1e-05"])
def test_what_pairs_change_may_be_a_distance_of_vectors_and_is_no_percentage(sigma: str) -> None:
    """It may be above 1 there, and not 0 where pairs are encoded from images again."""
    meaning = meaning_of(f"changed_sigma{sigma}")
    assert (meaning.name, meaning.unit) == ("Change of the latents", "")
    assert f"σ = {sigma}" in meaning.what
    assert "generator" not in meaning.what
    assert all(words in meaning.what for words in ("share of the codes that differ", "of vectors, distance over"))
