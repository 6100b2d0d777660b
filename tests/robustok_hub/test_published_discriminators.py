"""Discriminators in published files become opponents that post-training can reuse."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from project import Project
from published import Case, export
from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import load_registry
from robustok_core.runs.files import read_tensors
from robustok_core.runs.loading import read_published, save_imported
from robustok_core.runs.promises import Loaded, TokenizerPromise
from robustok_core.runs.weights import part
from robustok_losses.feature_heads import HeadsConfig, _head
from robustok_losses.patch_discriminator import PatchConfig, PatchDiscriminator
from robustok_stages.tokenizer.opponents import saved_opponents
from robustok_training.checkpoint import load_optimizer_tensors, optimizer_tensors
from robustok_training.learned_state import load_learned

REGISTRY = load_registry()
SIZE = {"layers": 2, "width": 4}
TAMING = {"use": "taming_vq", "image_size": 16, "norm_groups": 4}
#: The importers of GEAR's tokenizers, by the parity file of their layout.
GEAR = {
    "llamagen_vq_a": {"use": "llamagen_vq", "image_size": 16},
    "open_magvit2_a": {"use": "open_magvit2", "image_size": 16, "norm_groups": 4},
    "ibq_a": {"use": "ibq", "image_size": 16, "norm_groups": 4},
}


def patch_gan() -> nn.ModuleDict:
    """The published patch discriminator, written down from its layers: 2 that halve, at width 4."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 8, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 16, 4, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 1, 4, padding=1),
    )
    return nn.ModuleDict({"main": layers})


def trained(network: nn.Module, images: Tensor) -> torch.optim.AdamW:
    """The optimiser of a network after two steps on images."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(2):
        network["main"](images).square().mean().backward()
        optimizer.step()
    return optimizer


def images() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def files(network: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What published training scripts write, with the importer that reads it."""
    state, learned = dict(network.state_dict()), optimizer.state_dict()

    def prefixed(prefix: str) -> dict[str, Tensor]:
        return {f"{prefix}{name}": value for name, value in state.items()}

    vq, lc = Case("taming_vq_a").weights, Case("vqgan_lc_a").weights
    averages = {f"model_ema.lossdiscriminator{name.replace('.', '')}": value * 0 for name, value in state.items()}
    lightning = {"optimizer_states": [{"state": {}, "param_groups": []}, learned]}
    lc_importer = {"use": "vqgan_lc", "image_size": 16, "norm_groups": 4}
    llamagen = {"model": Case("llamagen_vq_a").weights, "optimizer": {}, "steps": 3}
    return {
        "taming": ({"state_dict": vq | prefixed("loss.discriminator."), **lightning}, TAMING),
        "SEED-Voken": ({"state_dict": vq | prefixed("loss.discriminator.") | averages, **lightning}, TAMING),
        "VQGAN-LC": ({"model": lc | prefixed("discriminator.")}, lc_importer),
        "LlamaGen": (
            llamagen | {"discriminator": prefixed("module."), "optimizer_disc": learned},
            {"use": "llamagen_vq", "image_size": 16},
        ),
        **{f"GEAR {table['use']}": (gear(Case(name).weights, state, learned), table) for name, table in GEAR.items()},
    }


def gear(weights: dict[str, Tensor], discriminator: dict[str, Tensor], learned: dict[str, Any]) -> dict[str, Any]:
    """What GEAR's training writes: its tokenizer is taken, neither the averages nor the generator's weights."""
    averages = {name: value * 0 for name, value in weights.items()}
    generator = {"tok_embeddings.weight": torch.ones(2, 2)}
    others = {"ema": generator, "ar": generator, "opt_vq": {}, "sched_disc": {}, "steps": 3, "stage": 0}
    return {"vq": weights, "vq_ema": averages, "discriminator": discriminator, "opt_disc": learned, **others}


FILES = ["taming", "SEED-Voken", "VQGAN-LC", "LlamaGen", "GEAR llamagen_vq", "GEAR open_magvit2", "GEAR ibq"]


def imported(content: dict[str, Any], importer: dict[str, Any], folder: Path):
    torch.save(content, folder / "file.pt")
    return read_published(REGISTRY.spec("importer", importer), folder / "file.pt", REGISTRY)


def adversarial(table: Mapping[str, Any]) -> nn.Module:
    return REGISTRY.build("loss", {"use": "adversarial", **table}).opponent


@pytest.mark.parametrize("name", FILES)
def test_a_published_patch_discriminator_scores_as_it_did(name, tmp_path):
    network = patch_gan()
    content, importer = files(network, trained(network, images()))[name]
    read = imported(content, importer, tmp_path)
    opponent = adversarial({"patch": SIZE | {"norm": "batch"}})
    load_learned(opponent, part(read.opponents, "module/adversarial/"), "here")
    network.eval(), opponent.eval()
    torch.testing.assert_close(opponent.network(images())[0], network["main"](images()).flatten(1))
    assert "kept for post_train" in read.report["discriminator"]
    assert "discriminator" not in read.report.get("not read", "")


@pytest.mark.parametrize("name", ["taming", "LlamaGen", "GEAR ibq"])
def test_its_optimiser_goes_on_where_it_stopped(name, tmp_path):
    network = patch_gan()
    optimizer = trained(network, images())
    content, importer = files(network, optimizer)[name]
    read = imported(content, importer, tmp_path)
    opponent = adversarial({"patch": SIZE | {"norm": "batch"}})
    parameters = {f"opponent.{name}": parameter for name, parameter in opponent.named_parameters()}
    again = torch.optim.AdamW(parameters.values(), lr=1e-3)
    load_optimizer_tensors(again, list(parameters), part(read.opponents, "optimizer/adversarial/"))
    first = optimizer_tensors(optimizer, list(parameters))
    assert {key: value.tolist() for key, value in optimizer_tensors(again, list(parameters)).items()} == {
        key: value.tolist() for key, value in first.items()
    }


@pytest.mark.parametrize("case", GEAR)
def test_of_a_training_of_gear_the_tokenizer_is_read(case, tmp_path):
    network = patch_gan()
    content, importer = files(network, trained(network, images()))[f"GEAR {GEAR[case]['use']}"]
    read = imported(content, importer, tmp_path)
    assert Case(case).same_weights(export(importer["use"], read.component))
    assert read.report["weights"] == "vq"
    assert read.report["not read"] == "vq_ema, ema, ar, opt_vq, sched_disc, steps, stage"


def test_an_optimiser_of_other_parameters_is_left_out(tmp_path):
    network = patch_gan()
    content, importer = files(network, trained(network, images()))["LlamaGen"]
    del content["optimizer_disc"]["state"][0]
    read = imported(content, importer, tmp_path)
    assert not part(read.opponents, "optimizer/")
    assert part(read.opponents, "module/")


def head() -> nn.Module:
    """A head of ours on maps of 6 channels."""
    features = REGISTRY.spec("features", {"use": "fashion_classifier"})
    return _head(6, HeadsConfig(features=features, kernel=3))


class PublishedHead(nn.Module):
    """A head as released: torch's first spectral_norm, names as in the file."""

    def __init__(self) -> None:
        super().__init__()
        ours = head()
        convolution = [nn.Conv1d(6, 6, 1), nn.Conv1d(6, 6, 3), nn.Conv1d(6, 1, 1)]
        point, wide, last = map(nn.utils.spectral_norm, convolution)
        norm = type(ours[0][1])
        self.add_module("0", nn.Sequential(point, norm(6, 8)))
        self.add_module("1", nn.ModuleDict({"fn": nn.Sequential(wide, norm(6, 8))}))
        self.add_module("2", last)


@pytest.mark.filterwarnings("ignore:.*spectral_norm.*")
def test_published_heads_have_the_same_normalised_weights(tmp_path):
    torch.manual_seed(0)
    published = nn.ModuleDict({"heads": nn.ModuleList([PublishedHead()])})
    for module in published.modules():  # the first forward passes set the vectors of the power iteration
        if isinstance(module, nn.Conv1d):
            module(torch.randn(2, 6, 9))
    published.eval()
    state, content = published.state_dict(), Case("robustok_tokenizer_a").weights
    importer = {"use": "robustok", "num_heads": 4}
    read = imported({"ema": content, "discriminator": state}, importer, tmp_path)
    weights = part(read.opponents, "module/adversarial/network.heads.0.")
    ours = head().eval()
    ours.load_state_dict(weights)
    theirs = published["heads"][0]
    for mine, convolution in ((ours[0][0], theirs.get_submodule("0")), (ours[1].fn[0], theirs.get_submodule("1.fn"))):
        old = convolution[0]
        u, v = old.weight_u, old.weight_v
        matrix = old.weight_orig.flatten(1)
        torch.testing.assert_close(mine.weight, old.weight_orig / torch.dot(u, matrix @ v))
        assert torch.equal(mine.bias, old.bias)


def test_a_discriminator_of_an_unknown_network_is_reported(tmp_path):
    content = {"model": Case("llamagen_vq_a").weights, "discriminator": {"blocks.0.weight": torch.ones(2)}}
    read = imported(content, {"use": "llamagen_vq", "image_size": 16}, tmp_path)
    assert not read.opponents
    assert read.report["discriminator"].startswith("not read: its network")


def test_the_artifact_and_its_promise_have_the_discriminator(tmp_path):
    network = patch_gan()
    content, importer = files(network, trained(network, images()))["taming"]
    read = imported(content, importer, tmp_path)
    promise = Loaded(REGISTRY, tmp_path / "artifact", "", read).read(TokenizerPromise)
    assert promise.opponents == ["adversarial"]
    save_imported(read, tmp_path / "artifact")
    assert saved_opponents(tmp_path / "artifact") == ["adversarial"]
    later = Loaded(REGISTRY, tmp_path / "artifact", "").read(TokenizerPromise)
    assert later.opponents == ["adversarial"]
    assert promise.post_trained is later.post_trained is None
    held = read_tensors(tmp_path / "artifact" / "opponents.safetensors")
    assert held.keys() == read.opponents.keys()


def test_batch_normalisation_uses_the_batch_in_training_and_its_averages_later():
    network = PatchDiscriminator(PatchConfig(**SIZE, norm="batch"))
    first, second = images(), torch.cat([images()[:1], torch.zeros(1, 3, 16, 16)])
    assert not torch.equal(network(first)[0][0], network(second)[0][0])
    network.eval()
    torch.testing.assert_close(network(first)[0][0], network(second)[0][0])


def post_training(folder: Path, patch: dict[str, Any]) -> Project:
    """A recipe that post-trains a published tokenizer with the discriminator in its file."""
    sizes = {"image_size": 32, "channels": 8, "norm_groups": 4, "z_channels": 4, "num_res_blocks": 1}
    quantizer = {"use": "vq", "codebook_size": 16, "width": 4, "l2_normalise": False}
    table = {"use": "conv_vq", **sizes, "channel_multipliers": [1, 1, 1, 1], "quantizer": quantizer}
    network = patch_gan()
    weights = dict(export("taming_vq", REGISTRY.build("tokenizer", table)))
    weights |= {f"loss.discriminator.{name}": value for name, value in network.state_dict().items()}
    learned = trained(network, images()).state_dict()
    torch.save({"state_dict": weights, "optimizer_states": [{"state": {}}, learned]}, folder / "last.ckpt")
    losses = {"l2": {"use": "reconstruction"}, "adversarial": {"use": "adversarial", "start": 0.0, "patch": patch}}
    stages = ["tokenize", "train_generator", "make_pairs", "post_train"]
    project = Project(folder / "runs", stages, post_train={"losses": losses, "discriminator": "reuse"})
    importer = {"use": "taming_vq", "image_size": 32, "norm_groups": 4}
    project.table["load"] = {"tokenizer": {"path": str(folder / "last.ckpt"), "importer": importer}}
    return project


def test_post_training_goes_on_with_a_published_discriminator(tmp_path):
    project = post_training(tmp_path, SIZE | {"norm": "batch"}).run()
    assert project.results["post_train/decoders"].value == 2
    assert saved_opponents(project.artifact("tokenizer")) == ["adversarial"]


def test_a_published_discriminator_of_another_size_is_refused_before_anything_runs(tmp_path):
    project = post_training(tmp_path, {"layers": 1, "width": 4, "norm": "batch"})
    with pytest.raises(RobustokError, match="is another one than this: missing network.levels.5.bias") as caught:
        project.check()
    assert "stage.post_train.losses.adversarial" in caught.value.what
