from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from robustok_core import ImageFeatures, ProblemsError, Registry, RobustokError, Spec
from robustok_metrics.fdr import PAPER_NETWORKS, FDr, FDrConfig

Colours = Callable[..., Spec]


class InTwoNetworks(ImageFeatures):
    """Rows in one network, and these times a matrix in another; `others` are the sets beside it."""

    def __init__(self, rows: Tensor, name: str = "given", **others: Tensor) -> None:
        self.rows, self.name, self.others = rows, name, others

    def __len__(self) -> int:
        return len(self.rows)

    def features(self, network: Spec) -> Tensor:
        return self.rows if network.config.name == "first" else self.rows.square()

    logits = features

    def moments(self, network: Spec) -> tuple[Tensor, Tensor]:
        rows = self.features(network).double()
        return rows.mean(0), rows.T.cov()

    def other(self, name: str, limit: int | None = None) -> ImageFeatures:
        return InTwoNetworks(self.others[name][:limit], name)


def cloud(seed: int, count: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)) + shift


def fidelity(one: Tensor, other: Tensor) -> float:
    statistics = [fid_features_to_statistics(rows.double()) for rows in (one, other)]
    distance: float = fid_statistics_to_metric(*statistics, False)[KEY_METRIC_FID]
    return distance


def fdr(colours: Colours, *names: str) -> FDr:
    return FDr(FDrConfig(networks={name: colours(name) for name in names}))


def test_it_is_the_mean_of_ratios_of_fidelitys_distances(colours: Colours) -> None:
    samples, train, validation = cloud(1, 80, 0.7), cloud(2, 200), cloud(3, 80)
    results = fdr(colours, "first", "second").compute(
        InTwoNetworks(samples), InTwoNetworks(train, validation=validation)
    )
    first = fidelity(samples, train) / fidelity(validation, train)
    second = fidelity(samples**2, train**2) / fidelity(validation**2, train**2)
    result = results["fdr_first_second"]
    assert result.value == pytest.approx((first + second) / 2, rel=1e-6)
    assert result.details["ratio"] == pytest.approx({"first": first, "second": second}, rel=1e-6)
    assert (result.num_images, result.num_reference, result.higher_is_better) == (80, 200, False)
    assert results["fd_val_second"].value == pytest.approx(fidelity(validation**2, train**2), rel=1e-6)


def test_held_out_images_themselves_have_one(colours: Colours) -> None:
    validation = cloud(3, 80)
    reference = InTwoNetworks(cloud(2, 200), validation=validation)
    assert fdr(colours, "first").compute(InTwoNetworks(validation), reference)["fdr_first"].value == pytest.approx(1.0)


@pytest.mark.parametrize(("num_samples", "num_held_out"), [(60, 90), (90, 60)])
def test_both_distances_are_of_equally_many_images(colours: Colours, num_samples: int, num_held_out: int) -> None:
    reference = InTwoNetworks(cloud(2, 200), validation=cloud(3, num_held_out))
    results = fdr(colours, "first").compute(InTwoNetworks(cloud(1, num_samples)), reference)
    assert results["fdr_first"].num_images == 60
    assert results["fd_val_first"].value == pytest.approx(fidelity(cloud(3, num_held_out)[:60], cloud(2, 200)))


def test_held_out_images_that_are_the_reference_are_refused(colours: Colours) -> None:
    rows = cloud(2, 100)
    with pytest.raises(RobustokError, match="these images are the reference's") as caught:
        fdr(colours, "first").compute(InTwoNetworks(cloud(1, 100)), InTwoNetworks(rows, validation=rows))
    assert caught.value.where == "validation"


class WithStatistics(InTwoNetworks):
    """Its moments are statistics of a file, of nobody knows how many images."""

    num_in_moments = 0


def test_statistics_of_the_reference_have_no_number_of_images(colours: Colours) -> None:
    reference = WithStatistics(cloud(2, 200), validation=cloud(3, 80))
    results = fdr(colours, "first").compute(InTwoNetworks(cloud(1, 80)), reference)
    assert {name: result.num_reference for name, result in results.items()} == {"fdr_first": 0, "fd_val_first": 0}


def test_held_out_images_with_statistics_are_refused(colours: Colours) -> None:
    class Reference(InTwoNetworks):
        def other(self, name: str, limit: int | None = None) -> ImageFeatures:
            return WithStatistics(cloud(3, 80), name)

    with pytest.raises(RobustokError, match="mu and sigma are of an unknown number of images") as caught:
        fdr(colours, "first").compute(InTwoNetworks(cloud(1, 80)), Reference(cloud(2, 200)))
    assert caught.value.where == "validation"


def test_only_the_papers_six_networks_give_fdr6(colours: Colours, registry: Registry) -> None:
    metric = registry.build("sample_metric", {"use": "fdr"})
    assert set(metric.config.networks) == set(PAPER_NETWORKS)
    with torch.device("meta"):  # shapes and names without weights
        found = metric.result_names(
            lambda spec: spec.build() if spec.name != "inception" else colours("inception").build()
        )
    assert found[0] == "fdr6"
    assert len(found) == 7


def test_networks_that_results_cannot_tell_apart_are_refused(colours: Colours, registry: Registry) -> None:
    metric = FDr(FDrConfig(networks={"first": colours("first"), "last": colours("first", version=2)}))
    reference = InTwoNetworks(cloud(2, 200), validation=cloud(3, 80))
    for name_them in (
        lambda: metric.compute(InTwoNetworks(cloud(1, 80)), reference),
        lambda: metric.result_names(lambda spec: spec.build()),
        lambda: metric.check_features(lambda spec: spec.build(), None),
    ):
        with pytest.raises(RobustokError, match="networks first and last have the same name, 'first'"):
            name_them()
    twice = {"use": "efficientnet_lite0"}
    with pytest.raises(ProblemsError, match="one and two are the same network"):
        registry.spec("sample_metric", {"use": "fdr", "networks": {"one": twice, "two": twice | {"min_size": 64}}})


def test_no_network_is_refused(registry: Registry) -> None:
    with pytest.raises(ProblemsError, match="needs at least one feature network"):
        registry.spec("sample_metric", {"use": "fdr", "networks": {}})
