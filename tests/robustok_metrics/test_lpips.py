from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import lpips
import pytest
import torch
import torchvision
from torch import Tensor, nn

from robustok_core import RobustokError
from robustok_metrics.lpips import LPIPS, LPIPSConfig


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with random weights of AlexNet's convolutions, in torchvision's format."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = torchvision.models.alexnet().state_dict()
    file = tmp_path_factory.mktemp("lpips") / "alexnet.pth"
    torch.save({name: value for name, value in state.items() if name.startswith("features.")}, file)
    return file


def reference(weights: Path, one: Tensor, two: Tensor) -> Tensor:
    """LPIPS as in the paper: unit-length activations after each ReLU, squared differences, learned channel weights."""
    trunk = torchvision.models.alexnet().features
    trunk.load_state_dict({name.removeprefix("features."): value for name, value in torch.load(weights).items()})
    learned = torch.load(Path(lpips.__file__).parent / "weights" / "v0.1" / "alex.pth", map_location="cpu")
    mean, std = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x = (torch.cat([one, two]) - mean[:, None, None]) / std[:, None, None]
    distance = torch.zeros(len(one))
    relu = 0
    for layer in trunk[:-1]:  # the last pooling is not used, and 32 pixels are too few for it
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            left, right = (x / x.square().sum(1, keepdim=True).sqrt().add(1e-10)).split(len(one))
            channels = learned[f"lin{relu}.model.1.weight"].flatten()
            distance += ((left - right).square().mean(dim=(2, 3)) * channels).sum(dim=1)
            relu += 1
    return distance


@torch.no_grad()
def test_metric_is_the_mean_lpips_over_images(evaluation: Any, weights: Path) -> None:
    results = evaluation.measure(LPIPS(LPIPSConfig(network="alex", weights=str(weights))))
    step = evaluation.step(torch.arange(60))
    expected = reference(weights, step.images, step.batch.images).mean().item()
    assert set(results) == {"lpips_alex"}
    assert results["lpips_alex"].value == pytest.approx(expected, rel=1e-4)
    assert results["lpips_alex"].higher_is_better is False


def test_a_failed_download_names_the_missing_file(evaluation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", "/nowhere")
    with pytest.raises(RobustokError, match="cannot get the weights of LPIPS's alex .*no route to host") as caught:
        evaluation.start(LPIPS(LPIPSConfig(network="alex")))
    assert "alexnet-owt-7be5be79.pth" in str(caught.value)
