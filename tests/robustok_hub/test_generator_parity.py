"""The generators compute and sample what the published code does, read from published-style files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from published import millions
from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import load_registry
from robustok_core.runs.components import load_component, save_component
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Latents, LatentSpace
from robustok_generators.autoregressive import Kept
from robustok_generators.token_sampling import TokenSampling

PARITY = Path(__file__).parents[1] / "parity"
OPTIONS = {"rar": {}, "llamagen_gpt": {"num_tokens": 16, "num_heads": 4}, "gigatok_gpt": {"num_heads": 4}}
IMPORTERS = {"rar": "rar", "llamagen_gpt": "llamagen_gpt", "gigatok_gpt": "llamagen_gpt"}  # by the name of the file
GREEDY = TokenSampling(temperature=0.0)
NONE = Guidance()
RAR_GUIDANCE = Guidance(scale=4.0, schedule="cosine", power=1.5)


class Case:
    """A parity file: its weights under the published names, inputs, outputs and tolerances."""

    def __init__(self, importer: str) -> None:
        self.limits = json.loads((PARITY / f"{importer}_a.json").read_text())["tolerance"]
        tensors = load_file(PARITY / f"{importer}_a.safetensors")
        self.weights = {key[2:]: value for key, value in tensors.items() if key.startswith("w.")}
        self.outputs = {key[4:]: value for key, value in tensors.items() if key.startswith("out.")}
        self.tokens, self.labels = tensors["in.tokens"], tensors["in.labels"]
        self.order, self.mask = tensors.get("in.order"), tensors.get("in.tf_mask")
        self.null = torch.full_like(self.labels, 10)

    def check(self, name: str, actual: torch.Tensor) -> None:
        limits = self.limits[name]
        if limits.get("exact"):
            assert torch.equal(actual, self.outputs[name])
        else:
            torch.testing.assert_close(actual, self.outputs[name], atol=limits["atol"], rtol=limits["rtol"])


def load(importer: str, file: Path, **options: object):
    table = {"use": IMPORTERS[importer], **OPTIONS[importer], **options}
    return load_registry().build("importer", table).load(file, load_registry())


def imported(importer: str, folder: Path):
    case = Case(importer)
    save_file(case.weights, folder / "file.safetensors")
    return case, *load(importer, folder / "file.safetensors")


def greedy(generator, labels: torch.Tensor, guidance: Guidance = NONE, kept: Kept | None = None) -> torch.Tensor:
    unused = torch.full((len(labels), 16), torch.nan)
    return generator.sample_codes(labels, unused, guidance=guidance, sampling=GREEDY, kept=kept)


# --- what they compute ----------------------------------------------------------------------------


@torch.no_grad()
def test_rar_computes_what_the_published_code_computes(tmp_path):
    case, _, generator, _ = imported("rar", tmp_path)
    case.check("logits_raster", generator(case.tokens, case.labels))
    case.check("logits_raster_uncond", generator(case.tokens, case.null))
    permuted = generator(case.tokens, case.labels, case.order)
    case.check("logits_perm", permuted)
    assert torch.equal(case.tokens.gather(1, case.order), case.outputs["labels_perm"])
    assert torch.equal(case.tokens, case.outputs["labels_raster"])


@torch.no_grad()
def test_an_explicit_raster_order_equals_the_default(tmp_path):
    case, _, generator, _ = imported("rar", tmp_path)
    raster = torch.arange(16).expand(3, 16)
    torch.testing.assert_close(
        generator(case.tokens, case.labels, raster), generator(case.tokens, case.labels), atol=1e-6, rtol=1e-5
    )


@torch.no_grad()
def test_rar_loss_is_the_published_one(tmp_path, monkeypatch):
    case, _, generator, _ = imported("rar", tmp_path)
    monkeypatch.setattr(generator, "orders", lambda draws, progress: case.order)
    generator.label_dropout = 0.0
    losses = generator.loss(Latents(codes=case.tokens), case.labels, draws=Draws.for_rows(0, 3), progress=0.0)
    case.check("loss_perm", losses["cross_entropy"][None])


@torch.no_grad()
def test_llamagen_gpt_computes_what_the_published_code_computes(tmp_path):
    case, _, generator, _ = imported("llamagen_gpt", tmp_path)
    case.check("logits", generator(case.tokens, case.labels))
    case.check("logits_uncond", generator(case.tokens, case.null))
    case.check("freqs_cis", torch.cat([generator.rotations(), case.outputs["freqs_cis"][-1:]]))
    generator.label_dropout = 0.0
    losses = generator.loss(Latents(codes=case.tokens), case.labels, draws=Draws.for_rows(0, 3), progress=0.0)
    case.check("loss", losses["cross_entropy"][None])


def test_classes_are_the_rows_after_the_codes_and_the_mask(tmp_path):
    case, _, generator, _ = imported("rar", tmp_path)
    for ids, labels in (("condition_ids", case.labels), ("none_condition_ids", case.null)):
        expected = case.weights["embeddings.weight"][case.outputs[ids]]
        assert torch.equal(generator.class_embedding(labels), expected)


# --- what they sample -----------------------------------------------------------------------------


def test_rar_samples_the_published_codes_with_and_without_guidance(tmp_path):
    case, _, generator, _ = imported("rar", tmp_path)
    case.check("greedy_nocfg", greedy(generator, case.labels))
    case.check("greedy_cfg4_pow1.5", greedy(generator, case.labels, RAR_GUIDANCE))


def test_guidance_grows_as_in_the_published_code():
    case = Case("rar")
    case.check("cfg_schedule", torch.tensor([RAR_GUIDANCE.weight(step / 16) for step in range(16)]))


def test_kept_codes_condition_later_ones_as_in_the_published_code(tmp_path):
    case, _, generator, _ = imported("rar", tmp_path)
    kept = Kept(codes=case.tokens, mask=case.mask.bool())
    case.check("tf_greedy_cfg4_pow1.5", greedy(generator, case.labels, RAR_GUIDANCE, kept))


def test_llamagen_gpt_samples_the_published_codes_with_and_without_guidance(tmp_path):
    case, _, generator, _ = imported("llamagen_gpt", tmp_path)
    case.check("greedy_cfg1", greedy(generator, case.labels))
    case.check("greedy_cfg4", greedy(generator, case.labels, Guidance(scale=4.0)))


@torch.no_grad()
def test_gigatok_gpt_computes_what_the_published_code_computes(tmp_path):
    case, _, generator, _ = imported("gigatok_gpt", tmp_path)
    case.check("logits", generator(case.tokens, case.labels))
    case.check("logits_uncond", generator(case.tokens, case.null))
    generator.label_dropout = 0.0
    losses = generator.loss(Latents(codes=case.tokens), case.labels, draws=Draws.for_rows(0, 3), progress=0.0)
    case.check("loss", losses["cross_entropy"][None])


def test_gigatok_gpt_samples_the_published_codes_with_and_without_guidance(tmp_path):
    case, _, generator, _ = imported("gigatok_gpt", tmp_path)
    case.check("greedy_cfg1", greedy(generator, case.labels))
    case.check("greedy_cfg4", greedy(generator, case.labels, Guidance(scale=4.0)))
    late = Guidance(scale=4.0, start=0.3 * 15 / 16, guide_first=True)  # their share of a token i is i / 15
    case.check("greedy_cfg4_step", greedy(generator, case.labels, late))


def test_the_size_of_a_gigatok_gpt_is_read_from_its_weights(tmp_path):
    _, table, generator, _ = imported("gigatok_gpt", tmp_path)
    sizes = {"width": 48, "depth": 2, "num_heads": 4, "mlp_width": 128, "positions": "learned"}
    assert sizes.items() <= table.items()
    assert generator.space == LatentSpace(kind="discrete", num_tokens=16, width=8, codebook_size=64)


@pytest.mark.parametrize(("preset", "published"), [("B", 111.1), ("XL", 775.1), ("XXL", 1411.4)])
def test_a_gigatok_gpt_has_its_number_of_parameters(preset, published):
    """111.09 M is GigaTok's own number; the others are LlamaGen's and the table of 257 positions."""
    space = LatentSpace(kind="discrete", num_tokens=256, width=8, codebook_size=16384)
    table = {"use": "llamagen_gpt", "preset": preset, "positions": "learned"}
    assert millions("generator", table, space, 1000) == pytest.approx(published, abs=0.1)


@pytest.mark.parametrize(("importer", "number"), [("rar", 12), ("llamagen_gpt", 6), ("gigatok_gpt", 6)])
def test_every_output_is_compared(importer, number):
    assert len(Case(importer).outputs) == number


# --- import and export ----------------------------------------------------------------------------


def test_the_size_of_a_rar_is_read_from_its_weights(tmp_path):
    _, table, generator, report = imported("rar", tmp_path)
    sizes = {"width": 32, "depth": 2, "num_heads": 4, "mlp_width": 128, "position_rows": 1040, "timestep_rows": 116}
    assert sizes.items() <= table.items()
    assert generator.space == LatentSpace(kind="discrete", num_tokens=16, width=64, codebook_size=64, grid=(4, 4))
    assert (generator.num_classes, generator.knows_null_class, generator.training) == (10, True, False)
    assert report["weights"] == "the whole file"


@pytest.mark.parametrize(("name", "side"), [("c2i_XL_384", 24), ("c2i_B_256", 16), ("mine", 16)])
def test_the_tokens_of_a_llamagen_gpt_are_those_of_its_files_pixels(name, side, tmp_path):
    file, registry = tmp_path / f"{name}.safetensors", load_registry()
    save_file(Case("llamagen_gpt").weights, file)

    def read(**options: int):
        table = {"use": "llamagen_gpt", "num_heads": 4, **options}
        return registry.build("importer", table).load(file, registry)[1].space.grid

    assert read() == (side, side)
    assert read(num_tokens=64) == (8, 8)


def test_the_size_of_a_llamagen_gpt_is_read_from_its_weights(tmp_path):
    _, table, generator, _ = imported("llamagen_gpt", tmp_path)
    sizes = {"width": 48, "depth": 2, "num_heads": 4, "mlp_width": 128, "positions": "rope", "class_rope": "zero"}
    assert sizes.items() <= table.items()
    assert generator.space == LatentSpace(kind="discrete", num_tokens=16, width=8, codebook_size=64, grid=(4, 4))
    assert (generator.num_classes, generator.knows_null_class) == (10, True)


@pytest.mark.parametrize("importer", IMPORTERS)
def test_export_is_the_inverse_of_import(importer, tmp_path):
    case, _, generator, _ = imported(importer, tmp_path)
    exported = load_registry().build("importer", {"use": IMPORTERS[importer]}).export(generator)
    assert exported.keys() == case.weights.keys()
    assert all(torch.equal(exported[key], value) for key, value in case.weights.items())


@pytest.mark.parametrize("importer", IMPORTERS)
def test_an_imported_generator_can_be_saved_as_an_artifact(importer, tmp_path):
    case, table, generator, _ = imported(importer, tmp_path)
    (tmp_path / "artifact").mkdir()
    save_component(tmp_path / "artifact", "generator", table, generator)
    loaded = load_component(load_registry(), tmp_path / "artifact")
    assert loaded.space == generator.space
    assert torch.equal(greedy(loaded, case.labels), greedy(generator, case.labels))


def test_a_rar_without_spare_rows_is_read_too(tmp_path):
    registry = load_registry()
    space = LatentSpace(kind="discrete", num_tokens=9, width=64, codebook_size=5, grid=(3, 3))
    table = {"use": "rar", "width": 16, "depth": 1, "num_heads": 2}
    generator = registry.build("generator", table, space, 3)
    save_file(registry.build("importer", {"use": "rar"}).export(generator), tmp_path / "file.safetensors")
    assert load("rar", tmp_path / "file.safetensors")[1].space == space


def test_an_ambiguous_number_of_tokens_must_be_given(tmp_path):
    weights = Case("rar").weights
    weights["timesteps_embeddings"] = weights["timesteps_embeddings"][:, :30].contiguous()
    save_file(weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match="num_tokens"):
        load("rar", tmp_path / "file.safetensors")
    assert load("rar", tmp_path / "file.safetensors", num_tokens=16)[1].space.num_tokens == 16


def test_a_table_of_positions_identifies_gigatok(tmp_path):
    weights = Case("llamagen_gpt").weights
    weights["positional_embedding"] = torch.randn(17, 48)
    torch.save({"model": {f"module.{name}": value for name, value in weights.items()}}, tmp_path / "file.pt")
    table, generator = load("llamagen_gpt", tmp_path / "file.pt", num_tokens=256)[:2]
    assert table["positions"] == "learned"
    assert (generator.space.num_tokens, generator.space.grid) == (16, None)
    assert torch.equal(
        load_registry().build("importer", {"use": "llamagen_gpt"}).export(generator)["positional_embedding"],
        weights["positional_embedding"],
    )


def test_a_stored_rotary_table_is_dropped_and_reported(tmp_path):
    weights = {**Case("llamagen_gpt").weights, "freqs_cis": torch.zeros(17, 6, 2)}
    save_file(weights, tmp_path / "file.safetensors")
    assert "dropped" in load("llamagen_gpt", tmp_path / "file.safetensors")[2]["freqs_cis"]


@pytest.mark.parametrize("importer", IMPORTERS)
def test_the_file_of_another_model_is_refused(importer, tmp_path):
    other = "llamagen_gpt" if importer == "rar" else "rar"
    save_file(Case(other).weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match=r"this is not a .* generator: it lacks") as caught:
        load(importer, tmp_path / "file.safetensors")
    assert caught.value.where == str(tmp_path / "file.safetensors")


@pytest.mark.parametrize(
    ("importer", "name"),
    [("rar", "blocks.1.adaLN_modulation.1.bias"), ("llamagen_gpt", "layers.1.feed_forward.w2.weight")],
)
def test_missing_and_unexpected_weights_are_named_as_published(importer, name, tmp_path):
    weights = Case(importer).weights
    del weights[name]
    weights["mystery.weight"] = torch.ones(1)
    save_file(weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match=rf"missing {name}; unexpected mystery.weight"):
        load(importer, tmp_path / "file.safetensors")


@pytest.mark.parametrize("importer", IMPORTERS)
def test_another_generator_is_not_exported(importer):
    other = "llamagen_gpt" if importer == "rar" else "rar"
    registry = load_registry()
    space = LatentSpace(kind="discrete", num_tokens=4, width=4, codebook_size=5, grid=(2, 2))
    generator = registry.build("generator", {"use": other, "width": 16, "depth": 1, "num_heads": 2}, space, 3)
    with pytest.raises(RobustokError, match="the published"):
        registry.build("importer", {"use": IMPORTERS[importer]}).export(generator)
