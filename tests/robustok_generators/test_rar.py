"""RAR: orders, conditioning, sizes."""

from __future__ import annotations

import pytest
import torch

from robustok_core import load_registry
from robustok_core.errors import ProblemsError, RobustokError
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace
from robustok_generators.rar import RAR, RandomOrder, RARConfig
from robustok_generators.rar_decoding import Modulations

#: Parameters of the published models by size and codebook size, in millions.
PUBLISHED = [
    ("B", 1024, 260.9),
    ("L", 1024, 461.7),
    ("XL", 1024, 955.4),
    ("XXL", 1024, 1498.5),
    ("B", 4096, 265.6),
    ("L", 4096, 468.0),
]


@pytest.mark.parametrize(("preset", "codebook_size", "millions"), PUBLISHED)
def test_published_sizes_have_the_published_number_of_parameters(preset, codebook_size, millions):
    space = LatentSpace(kind="discrete", num_tokens=256, width=64, codebook_size=codebook_size, grid=(16, 16))
    with torch.device("meta"):
        generator = RAR(RARConfig(preset=preset, position_rows=1280, timestep_rows=356), space, 1000)
    assert round(sum(p.numel() for p in generator.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("progress", "share"), [(0.0, 1.0), (0.5, 1.0), (0.5625, 0.75), (0.625, 0.5), (0.75, 0.0), (1.0, 0.0)]
)
def test_the_share_of_random_orders_falls_between_half_and_three_quarters_of_training(make, progress, share):
    assert RandomOrder().share(progress) == pytest.approx(share)
    orders = make("rar").orders(Draws.for_rows(2, 4000), progress)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(12).expand(4000, -1))
    permuted = (orders != torch.arange(12)).any(dim=1).float().mean().item()
    assert permuted == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5 + 1e-9)


def test_random_orders_are_uniform(make):
    """Each token is at each position equally often."""
    orders = make("rar").orders(Draws.for_rows(3, 12000), 0.0)
    counts = torch.stack([orders[:, position].bincount(minlength=12) for position in range(12)])
    assert (counts - 1000).abs().max() < 5 * (12000 / 12 * 11 / 12) ** 0.5


def test_random_order_can_be_switched_off(make):
    generator = make("rar", random_order={"start": 0.0, "end": 0.0})
    assert torch.equal(generator.orders(Draws.for_rows(0, 5), 0.0), torch.arange(12).expand(5, -1))


def test_an_order_permutes_codes_and_both_position_tables(make):
    """In raster order, a model with permuted tables computes what the other does in the permuted order."""
    generator, codes = make("rar"), Draws.for_rows(4, 1).integers(20, 12)
    order = Draws.for_rows(5, 1).bits(12).argsort(dim=1)
    labels = torch.tensor([3])
    with torch.no_grad():
        expected = generator(codes, labels, order)
        for table in (generator.pos_embed, generator.target_aware_pos_embed):
            table[:, 2:14] = table[:, 2 + order[0]]
        actual = generator(codes.gather(1, order), labels)
    torch.testing.assert_close(actual, expected)


def test_spare_rows_of_the_tables_change_nothing(make):
    plain, spare = make("rar"), make("rar", position_rows=40, timestep_rows=20)
    with torch.no_grad():
        for name, value in plain.named_parameters():
            parameter = spare.get_parameter(name)
            (parameter[:, : value.shape[1]] if parameter.shape != value.shape else parameter).copy_(value)
    codes, labels = Draws.for_rows(4, 3).integers(20, 12), torch.tensor([0, 1, 2])
    with torch.no_grad():
        assert torch.equal(plain(codes, labels), spare(codes, labels))


def test_modulations_are_computed_once_per_class_and_match_each_row(make, monkeypatch):
    generator = make("rar")
    monkeypatch.setattr("robustok_generators.rar_decoding._ROWS", 15)
    labels = torch.tensor([2, 0, 2, 5, 5, 5])
    with torch.no_grad():
        modulations = Modulations(generator, labels)
        assert (len(modulations.classes), modulations.stride) == (3, 5)
        for position in range(14):
            conditions = generator.conditions(generator.class_embedding(labels)[:, None], slice(position, position + 1))
            blocks = [*generator.blocks, generator.head]
            modulations.move(position)
            for number, block in enumerate(blocks):
                torch.testing.assert_close(modulations.of(number), block.modulation(conditions))


def test_the_blocks_of_a_new_model_are_the_identity():
    registry = load_registry()
    space = LatentSpace(kind="discrete", num_tokens=4, width=4, codebook_size=6)
    generator = registry.build("generator", {"use": "rar", "width": 16, "depth": 2, "num_heads": 2}, space, 3).eval()
    x, modulation = torch.randn(2, 5, 16), generator.blocks[0].modulation(torch.randn(2, 5, 16))
    assert torch.equal(generator.blocks[0](x, modulation), x)
    assert generator.embeddings.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert generator.head.to_logits.bias.eq(0).all()


def test_embeddings_and_the_cls_token_do_not_decay(make):
    generator = make("rar")
    tables = {"cls_token", "pos_embed", "target_aware_pos_embed", "timesteps_embeddings", "embeddings.weight"}
    assert set(generator.not_decayed) == tables


def test_dropout_acts_only_in_training(make):
    generator, codes, labels = make("rar"), Draws.for_rows(4, 3).integers(20, 12), torch.tensor([0, 1, 2])
    with torch.no_grad():
        assert torch.equal(generator(codes, labels), generator(codes, labels))
        generator.train()
        assert not torch.equal(generator(codes, labels), generator(codes, labels))


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({}, "give width, or a preset: B, L, XL, XXL"),
        ({"width": 16, "depth": 1}, "give num_heads"),
        ({"width": 16, "depth": 1, "num_heads": 3}, "width 16 is not a multiple of num_heads 3"),
        ({"preset": "M"}, r"preset: .*'B', 'L', 'XL', 'XXL'"),
        ({"preset": "B", "random_order": {"start": 0.6, "end": 0.5}}, "before it starts"),
    ],
)
def test_mistakes_are_named(table, complaint):
    with pytest.raises(ProblemsError, match=complaint):
        load_registry().spec("generator", {"use": "rar", **table})


def test_given_numbers_override_the_preset():
    size = RARConfig(preset="XXL", depth=2).size
    assert (size.width, size.depth, size.num_heads, size.mlp_width) == (1408, 2, 16, 6144)
    assert RARConfig(preset="XXL", width=64).size.mlp_width == 256


def test_tables_that_are_too_short_are_refused(make):
    with pytest.raises(RobustokError, match="too short for 12 tokens"):
        make("rar", position_rows=13)


def test_latents_without_codes_are_refused(make):
    latents = Latents(vectors=torch.zeros(1, 12, 4))
    with pytest.raises(ValueError, match="latents with codes"):
        make("rar").loss(latents, torch.tensor([0]), draws=Draws.for_rows(0, 1), progress=0.0)
