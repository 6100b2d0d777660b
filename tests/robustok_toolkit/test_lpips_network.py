"""The LPIPS network loads weights from a given file, or says why it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from robustok_core.errors import RobustokError
from robustok_toolkit.lpips_network import SMALLEST, lpips_network

ASKED: Any = {"where": "the test", "otherwise": "do without"}


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """AlexNet's convolutions with random weights, and a file with them in torchvision's format."""
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = torchvision.models.alexnet().features
    file = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save({f"features.{name}": value for name, value in trunk.state_dict().items()}, file)
    return trunk, file


def test_the_trunk_has_the_weights_of_the_file_and_is_frozen(alexnet: tuple[nn.Module, Path]) -> None:
    trunk, file = alexnet
    network: Any = lpips_network("alex", str(file), **ASKED)
    weights = [weight for name, weight in network.net.state_dict().items()]
    for ours, theirs in zip(weights, trunk.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert not any(module.training for module in network.modules())
    assert not any(weight.requires_grad for weight in network.parameters())


def test_a_file_of_another_network_is_refused(alexnet: tuple[nn.Module, Path]) -> None:
    with pytest.raises(RobustokError, match=r"alexnet.pth: this file does not hold the weights of vgg") as caught:
        lpips_network("vgg", str(alexnet[1]), **ASKED)
    assert caught.value.hint == "it should be vgg16-397923af.pth"


def test_weights_that_are_not_finite_are_refused_by_name(alexnet: tuple[nn.Module, Path], tmp_path: Path) -> None:
    weights = torch.load(alexnet[1], weights_only=True)
    weights["features.0.bias"][3] = torch.nan
    torch.save(weights, tmp_path / "alexnet.pth")
    with pytest.raises(RobustokError, match=r"weights are NaN or infinite: .*bias \(1 of 64 values\)"):
        lpips_network("alex", str(tmp_path / "alexnet.pth"), **ASKED)


def test_a_file_that_is_missing_or_does_not_hold_weights_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "vgg.pth"
    with pytest.raises(RobustokError, match=r"vgg.pth: there is no such file"):
        lpips_network("vgg", str(file), **ASKED)
    file.write_text("no weights at all")
    with pytest.raises(RobustokError, match=r"vgg.pth: this is a text file \(no weights at all"):
        lpips_network("vgg", str(file), **ASKED)


def test_a_failed_download_gives_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # nothing was downloaded before
    with pytest.raises(RobustokError, match="cannot get .* LPIPS's alex from .*: no route to host") as caught:
        lpips_network("alex", None, **ASKED)
    assert caught.value.where == "the test"
    assert caught.value.hint.startswith('set weights = "FILE" to a local alexnet-owt-7be5be79.pth, or do without; ')


@pytest.mark.parametrize("trunk", SMALLEST)
def test_a_trunk_takes_images_of_its_smallest_size_and_no_smaller_ones(trunk: Any) -> None:
    with torch.device("meta"):
        network, side = lpips_network(trunk, None, **ASKED), SMALLEST[trunk]
        assert network(torch.zeros(1, 3, side, side), torch.zeros(1, 3, side, side)).shape == (1, 1, 1, 1)
        with pytest.raises(RuntimeError):  # torch's own
            network(torch.zeros(1, 3, side - 1, side - 1), torch.zeros(1, 3, side - 1, side - 1))


def test_no_file_is_read_on_the_meta_device() -> None:
    with torch.device("meta"):
        network = lpips_network("vgg", "a file that is not read", **ASKED)
        images = torch.zeros(2, 3, 32, 32)
    assert network(images, images).shape == (2, 1, 1, 1)
