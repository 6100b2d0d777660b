"""An import says what it chose for options that were left out."""

from __future__ import annotations

import pytest
from attrs import field, frozen
from safetensors.torch import save_file

from published import Case
from robustok_core.recipe.registry import load_registry
from robustok_core.runs.left_out import LEFT_OUT, with_options_left_out
from robustok_core.runs.loading import read_published


@frozen(kw_only=True)
class Config:
    num_heads: int | None = None
    image_size: int = 256
    l2_normalise: bool = True
    seed: int = field(default=0)


TABLE = {
    "use": "a",
    "image_size": 256,
    "encoder": {"num_heads": 3},
    "quantizer": {"use": "vq", "l2_normalise": True, "not_image_size": 1},
}


def test_values_are_those_of_the_component_wherever_its_tables_have_them():
    said = with_options_left_out({}, Config(), TABLE)[LEFT_OUT]
    assert said == "num_heads = 3, image_size = 256, l2_normalise = true"


def test_options_that_are_given_or_that_the_report_says_are_not_repeated():
    report = with_options_left_out({"l2_normalise": "true: of config.json"}, Config(num_heads=3), TABLE)
    assert report == {"l2_normalise": "true: of config.json", LEFT_OUT: "image_size = 256"}
    assert with_options_left_out({}, Config(num_heads=3), {"use": "a"}) == {}


@pytest.mark.parametrize("importer", ["lightningdit", "auto"])
def test_an_import_says_the_heads_that_it_assumed(importer, tmp_path):
    save_file(Case("lightningdit_a").weights, file := tmp_path / "weights.safetensors")
    registry = load_registry()
    report = read_published(registry.spec("importer", {"use": importer}), file, registry).report
    assert report[LEFT_OUT] == "num_heads = 4, guided_channels = 3"
