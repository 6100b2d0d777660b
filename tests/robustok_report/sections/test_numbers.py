"""The results: which are shown large, and of how many images each is."""

from __future__ import annotations

from robustok_core.values.result import Result
from robustok_report.sections.numbers import numbers


def test_the_first_stage_of_a_number_has_the_tile_and_each_network_one_of_its_own(as_reported):
    gfd = {"higher_is_better": False, "num_images": 5000}
    as_reported.results = {
        "evaluate_generator/gfd_a": Result(10.0, **gfd),
        "evaluate_generator/gfd_b": Result(20.0, **gfd),
        "evaluate_guided/gfd_a": Result(99.0, **gfd),
    }
    tiles, table = numbers(as_reported).parts
    assert [(fact.name, fact.value) for fact in tiles.facts] == [("gFD", "10"), ("gFD", "20")]
    assert tiles.facts[1].hint == "lower is better ↓, 5,000 images, evaluate_generator/gfd_b"
    assert len(table.rows) == 3


def test_a_mean_over_images_says_of_how_many_it_is(as_reported):
    psnr = Result(20.0, higher_is_better=True, details={"num_images": 274, "std": 2.0})
    as_reported.results = {"evaluate_tokenizer/psnr": psnr}
    tiles, table = numbers(as_reported).parts
    assert [cell.text for cell in table.rows[0][:3]] == ["PSNR", "20 ± 2 dB", "274"]
    assert "274 images" in tiles.facts[0].hint


def test_a_distance_of_vectors_above_1_is_shown_as_it_is(as_reported):
    as_reported.results = {"make_pairs/changed_sigma0.4": Result(1.37)}
    (table,) = numbers(as_reported).parts
    assert [table.rows[0][0].text, table.rows[0][1].text] == [
        "Change of the latents",
        "1.37",
    ]
