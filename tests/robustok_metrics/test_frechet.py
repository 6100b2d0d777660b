from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from robustok_core import Registry, RunError, Spec
from robustok_metrics.frechet import Frechet, FrechetConfig
from robustok_metrics.frechet_distance import FeatureSums, frechet_distance

Colours = Callable[..., Spec]


def test_result_is_the_distance_between_originals_and_8_bit_reconstructions(evaluation: Any, colours: Colours) -> None:
    results = evaluation.measure(Frechet(FrechetConfig(features=colours())))
    step = evaluation.step(torch.arange(60))
    real, decoded = FeatureSums(6), FeatureSums(6)
    network = colours().build()
    real.add(network(step.batch.images))
    decoded.add(network(step.images))
    assert results["rfd_colours"].value == pytest.approx(frechet_distance(real.moments(), decoded.moments()), rel=1e-5)


def test_result_states_the_number_of_images_and_that_lower_is_better(evaluation: Any, colours: Colours) -> None:
    result = evaluation.measure(Frechet(FrechetConfig(features=colours())))["rfd_colours"]
    assert (result.num_images, result.higher_is_better) == (60, False)


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("inception", "rfid"),
        ("inception_other", "rfd_inception_other"),
        ("efficientnet_lite0", "rfd_efficientnet_lite0"),
    ],
)
def test_only_distances_in_the_published_inception_are_called_fid(
    evaluation: Any, colours: Colours, network: str, name: str
) -> None:
    results = evaluation.measure(Frechet(FrechetConfig(features=colours(network))))
    assert set(results) == {name}


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9 has another switch")
def test_networks_run_in_float32_without_tf32(evaluation: Any, colours: Colours, registry: Registry) -> None:
    cells = {"use": "pfid", "alphas": [0.5], "deltas": [2]}
    spec = registry.spec("metric", cells)
    perturbed = spec.factory(attrs.evolve(spec.config, features=colours()))
    frechet = Frechet(FrechetConfig(features=colours("others")))
    seen = []
    for metric in (perturbed, frechet):
        evaluation.start(metric)
        metric.distances.features.register_forward_pre_hook(
            lambda *_: seen.append(
                (
                    torch.is_autocast_enabled("cpu"),
                    torch.backends.cudnn.conv.fp32_precision,
                    torch.backends.cuda.matmul.fp32_precision,
                )
            )
        )
    before = torch.backends.cudnn.conv.fp32_precision
    with torch.autocast("cpu", torch.bfloat16):
        evaluation.update(perturbed, frechet)
    assert seen == [(False, "ieee", "ieee")] * 12, "three batches of real and of decoded images, by two networks"
    assert torch.backends.cudnn.conv.fp32_precision == before != "ieee"


def test_summed_states_of_two_halves_give_the_whole(evaluation: Any, colours: Colours) -> None:
    metric = Frechet(FrechetConfig(features=colours()))
    whole = evaluation.measure(metric)
    halves = evaluation.numbers(evaluation.measure_in_halves(metric))
    assert halves == pytest.approx(evaluation.numbers(whole), rel=1e-9)


def test_pass_with_missing_images_is_refused(evaluation: Any, colours: Colours) -> None:
    metric = Frechet(FrechetConfig(features=colours()))
    evaluation.start(metric)
    evaluation.update(metric, rows=torch.arange(40))
    with pytest.raises(RunError, match="should have seen 60 images, but saw 40"):
        metric.compute()


def test_cached_reference_gives_the_same_result_without_extracting_real_features(
    evaluation: Any, colours: Colours, tmp_path: Path
) -> None:
    metric = Frechet(FrechetConfig(features=colours()))
    first = evaluation.measure(metric, cache=tmp_path)
    assert metric.distances.features.seen == 120  # 60 originals, 60 reconstructions
    again = evaluation.measure(metric, cache=tmp_path)
    assert metric.distances.features.seen == 180
    assert again == first


def test_cached_reference_is_not_part_of_the_state_that_processes_add_up(
    evaluation: Any, colours: Colours, tmp_path: Path
) -> None:
    metric = Frechet(FrechetConfig(features=colours()))
    evaluation.measure(metric, cache=tmp_path)
    assert any(name.startswith("real/") for name in metric.state())
    evaluation.start(metric, cache=tmp_path)
    assert not any(name.startswith("real/") for name in metric.state())


def test_cache_is_keyed_by_images_and_network(evaluation: Any, colours: Colours, tmp_path: Path) -> None:
    for source, version in (("images", 1), ("others", 1), ("images", 2), ("images", 1)):
        network = colours(version=version)
        evaluation.measure(Frechet(FrechetConfig(features=network)), source=source, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_cache_is_named_and_computed_again(
    evaluation: Any, colours: Colours, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metric = Frechet(FrechetConfig(features=colours()))
    before = evaluation.measure(metric, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    assert evaluation.measure(metric, cache=tmp_path) == before
    assert caplog.messages[0].startswith(f"{file}: is computed again: ")
    assert file.read_bytes() == whole
