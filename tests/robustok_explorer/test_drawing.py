from __future__ import annotations

import pytest
import torch
from PIL import Image

from robustok_core import Latents, RobustokError
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import LatentSpace
from robustok_explorer.answers import drawn
from robustok_explorer.drawing import Sheet
from robustok_explorer.markup import outline
from robustok_toolkit.generating import decode_to_uint8

ALL = range(16)


def tiles(sheet: Sheet) -> dict[str, torch.Tensor]:
    """The tiles of a sheet's first row by caption."""
    return {tile.caption: tile.pixels for tile in next(iter(sheet.rows.values()))}


def decoders(run) -> set[str]:
    return {f", {name}" if name else "" for name in run.tokenizers}


def test_an_image_is_shown_as_it_is_reconstructed_and_perturbed_by_each_decoder(run):
    sheet, _ = drawn(run, "perturb", {"image": 3, "num_images": 2})
    shown = tiles(sheet)
    assert set(shown) == {"original", *(f"{what}{when}" for what in ("clean", "perturbed") for when in decoders(run))}
    images = run.chosen(3, None).images
    newest = "" if len(run.tokenizers) == 1 else ", after"
    latents = run.tokenizer.encode_images(images)
    assert torch.equal(shown[f"clean{newest}"], decode_to_uint8(run.tokenizer.tokenizer, latents)[0])
    assert not torch.equal(shown[f"perturbed{newest}"], shown[f"clean{newest}"])


def test_the_images_beside_the_chosen_one_are_the_next_of_its_class(run):
    sheet, _ = drawn(run, "perturb", {"image": 3, "num_images": 3})
    labels = run.data.validation.labels
    rows = [int(name.rpartition(" ")[2]) for name in sheet.rows]
    assert rows[0] == 3
    assert len(set(rows)) == 3
    assert {int(labels[row]) for row in rows} == {int(labels[3])}


def test_only_the_share_alpha_of_the_tokens_changes_and_those_are_marked(run):
    sheet, _ = drawn(run, "perturb", {"image": 3, "perturbation.alpha": 0.25})
    ((*_, perturbed),) = sheet.rows.values()
    assert 0 < int(perturbed.changed.sum()) <= 4
    assert sheet.lines[0].endswith(f": {int(perturbed.changed.sum())} of 16 tokens changed.")


def test_half_of_the_images_is_perturbed_at_a_beta_of_a_half(run):
    sheet, _ = drawn(run, "perturb", {"image": 3, "num_images": 4, "perturbation.beta": 0.5})
    assert sum(bool(row[-1].changed.any()) for row in sheet.rows.values()) == 2


def test_the_seed_decides_which_tokens_change(run):
    def last(seed: int) -> torch.Tensor:
        sheet, _ = drawn(run, "perturb", {"image": 3, "seed": seed})
        return next(iter(sheet.rows.values()))[-1].pixels

    assert torch.equal(last(1), last(1))
    assert not torch.equal(last(1), last(2))


def test_a_generator_that_keeps_everything_changes_nothing(run):
    assert not any(tile.changed.any() for tile in _marked(drawn(run, "keep", {"image": 3, "sigma": 1.0})[0]))
    assert all(tile.changed.any() for tile in _marked(drawn(run, "keep", {"image": 3, "sigma": 0.0})[0]))


def _marked(sheet: Sheet) -> list:
    return [tile for row in sheet.rows.values() for tile in row if tile.changed is not None]


def test_an_image_painted_all_over_is_the_other_one(run):
    sheet, _ = drawn(run, "paint", {"image": 3, "source": 4, "tokens": list(ALL)})
    other, _ = drawn(run, "paint", {"image": 4, "source": 3, "tokens": []})
    for when in decoders(run):
        assert torch.equal(tiles(sheet)[f"painted{when}"], tiles(other)[f"clean{when}"])


def test_only_painted_tokens_are_taken_from_the_other_image(trained, open_project):
    run = open_project(trained)
    sheet, _ = drawn(run, "paint", {"image": 3, "source": 4, "tokens": [0, 5]})
    target, source = (run.tokenizer.encode_images(run.chosen(image, None).images).codes for image in (3, 4))
    target[:, [0, 5]] = source[:, [0, 5]]
    expected = decode_to_uint8(run.tokenizer.tokenizer, Latents(codes=target))[0]
    assert torch.equal(tiles(sheet)["painted"], expected)


def test_a_tokens_neighbours_are_in_order_of_their_distance_and_its_own_code_is_first(trained, open_project):
    run = open_project(trained)
    sheet, _ = drawn(run, "neighbours", {"image": 3, "token": 5, "count": 6})
    (row,) = sheet.rows.values()
    codes = run.tokenizer.encode_images(run.chosen(3, None).images).codes
    book = run.tokenizer.tokenizer.quantizer.codebook
    distances = (book - book[codes[0, 5]]).norm(dim=1)
    shown = [int(tile.caption.removeprefix("code ").partition(",")[0]) for tile in row]
    assert shown[0] == int(codes[0, 5])
    assert len(set(shown)) == 6
    torch.testing.assert_close(distances[shown], distances.sort().values[:6])
    replaced = codes.repeat(6, 1)
    replaced[:, 5] = torch.tensor(shown)
    # All at once, as they were drawn: in a batch of another size the last bit may differ, and a pixel with it.
    expected = decode_to_uint8(run.tokenizer.tokenizer, Latents(codes=replaced))
    assert torch.equal(torch.stack([tile.pixels for tile in row]), expected)


def test_samples_are_those_of_the_generator_with_the_recipes_sampler(run):
    sheet, _ = drawn(run, "sample", {"class_": "bag", "count": 2, "seed": 4})
    latents = run.generator.sample_latents("bag", 2, seed=4, steps=2)
    *_, newest = sheet.rows.values()
    assert torch.equal(torch.stack([tile.pixels for tile in newest]), decode_to_uint8(run.tokenizer.tokenizer, latents))


def test_a_generator_that_keeps_a_share_is_guided_as_in_post_training(guided, open_project):
    run = open_project(guided)
    sheet, _ = drawn(run, "keep", {"image": 3, "sigma": 0.1, "seed": 4})
    clean = run.tokenizer.encode_images(run.chosen(3, None).images)
    label = int(run.data.validation.labels[3])
    shown = tiles(sheet)["regenerated, after"]
    for guidance, same in ((Guidance(scale=1000.0, schedule="cosine", power=1.5), True), (1.0, False), (1000.0, False)):
        made = run.generator.sample_keeping(clean, label, 0.1, guidance, seed=4, steps=2)
        assert torch.equal(shown, decode_to_uint8(run.tokenizer.tokenizer, made)[0]) is same
    line = 'guidance = { scale = 1000.0, schedule = "cosine", power = 1.5 }'
    assert sheet.lines[-1] == f"The generator is guided as in post-training: {line}."


def test_samples_have_the_recipes_guidance_at_the_chosen_scale(guided, open_project):
    run = open_project(guided)

    def shown(scale: float) -> torch.Tensor:
        *_, newest = drawn(run, "sample", {"class_": "bag", "count": 2, "seed": 4, "guidance": scale})[0].rows.values()
        return torch.stack([tile.pixels for tile in newest])

    def expected(guidance: float | Guidance) -> torch.Tensor:
        latents = run.generator.sample_latents("bag", 2, guidance, 4, steps=2)
        return decode_to_uint8(run.tokenizer.tokenizer, latents)

    assert torch.equal(shown(900.0), expected(Guidance(scale=900.0, schedule="cosine", power=1.5)))
    assert not torch.equal(shown(900.0), expected(900.0))
    assert torch.equal(shown(1.0), expected(1.0))


def test_a_file_is_cropped_and_shown_in_place_of_a_validation_image(run, tmp_path):
    Image.new("RGB", (50, 40), (255, 0, 0)).save(tmp_path / "red.png")
    for view, more in (("perturb", {}), ("keep", {"class_of_file": "bag"}), ("paint", {"source": 3, "tokens": [1]})):
        sheet, _ = drawn(run, view, {"file": str(tmp_path / "red.png"), **more})
        ((name, row),) = sheet.rows.items()
        assert name == "red.png"
        assert row[0].pixels.flatten(1).T.unique(dim=0).tolist() == [[255, 0, 0]]


@pytest.mark.parametrize(
    ("view", "changes", "message"),
    [
        ("perturb", {"image": 40}, r"image: there is no validation image 40 \(images are 0 to 39\)"),
        ("perturb", {"imag": 4}, "--set imag: unknown key 'imag' .*did you mean 'image'"),
        ("perturb", {"perturbation.alpha": 1.5}, "--set perturbation.alpha: 1.5 is out of range"),
        ("perturb", {"perturbation.beta": 0.3}, "beta = 0.3 of a batch of 1 images is less than one image"),
        ("perturb", {"file": "nowhere.png"}, "nowhere.png: this image cannot be read"),
        ("keep", {"sigma": "all"}, "--set sigma: expected float, found str 'all'"),
        ("paint", {"tokens": [16]}, r"tokens: there is no token 16 \(tokens are 0 to 15\)"),
        ("neighbours", {"token": 99}, "token: there is no token 99"),
        ("sample", {"class_": "bags"}, "no class is called 'bags'"),
        ("sample", {"guidance": float("inf")}, "--set guidance: "),
    ],
)
def test_a_setting_that_does_not_fit_is_named(trained, open_project, view, changes, message):
    with pytest.raises(RobustokError, match=message):
        drawn(open_project(trained), view, changes)


def test_a_continuous_space_says_that_it_has_no_neighbours(continuous, open_project):
    with pytest.raises(RobustokError, match="this tokenizer has no codewords"):
        drawn(open_project(continuous), "neighbours", {"image": 3})


def test_the_outline_of_tokens_is_the_border_between_changed_and_unchanged_ones():
    space = LatentSpace(kind="discrete", num_tokens=6, width=1, codebook_size=2, grid=(2, 3))
    one = torch.tensor([0, 1, 0, 0, 0, 0], dtype=torch.bool)
    assert sorted(outline(one, space)) == [(1, 0, 1, 1), (1, 0, 2, 0), (1, 1, 2, 1), (2, 0, 2, 1)]
    assert len(outline(torch.ones(6, dtype=torch.bool), space)) == 2 * (2 + 3)
    assert outline(torch.zeros(6, dtype=torch.bool), space) == []
