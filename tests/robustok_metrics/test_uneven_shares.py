"""Seven images on two processes: every metric counts each image once, and has the value of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
import torchvision

from processes import two_forked
from project import CONTINUOUS, Project
from robustok_core import Result
from robustok_core.runs.results import read_results

IMAGES, SAMPLES = 7, 11
FEATURES = {"use": "fashion_classifier"}
OPTIONS: dict[str, dict[str, Any]] = {
    "fdr": {"networks": {"colours": FEATURES}},
    "ifid": {"neighbours": 2, "interpolation": "quantized"},
    "cmmd": {"least_images": 2},
    "mind": {"num_images": IMAGES},
    "rank_pfd": {"perturbation": {"use": "rank_law", "shares": [0.5, 0.3, 0.2]}},
    "inception_score": {"splits": 2},
    "kid": {"subsets": 3, "subset_size": 4},
    "precision_recall": {"neighbours": 2},
    "density_coverage": {"neighbours": 2},
    "pfid": {"alphas": [0.5], "deltas": [3]},
}
#: Their features are those of a network that is downloaded.
ELSEWHERE = {"sfid"}
#: For continuous spaces only; the others measure both kinds here, or discrete ones only.
OF_NOISE = {"noise_pfd"}


def tables(registry: Any, kind: str, weights: Path) -> dict[str, dict[str, Any]]:
    """Each metric of a kind, by name."""
    found = {}
    for name, factory in registry.classes(kind).items():
        options = dict(OPTIONS.get(name, {}))
        if "features" in attrs.fields_dict(factory.Config) and "features" not in options:
            options["features"] = FEATURES
        if name == "lpips":
            options = {"network": "alex", "weights": str(weights)}
        if name not in ELSEWHERE:
            found[name] = {"use": name, **options}
    return found


@pytest.fixture(scope="module")
def measured(registry, trained, tmp_path_factory) -> list[dict[str, Result]]:
    """The results of one process and of two."""
    folder = tmp_path_factory.mktemp("uneven")
    with torch.random.fork_rng():
        state = torchvision.models.alexnet().state_dict()
    torch.save({name: value for name, value in state.items() if name.startswith("features.")}, folder / "alexnet.pth")
    metrics = tables(registry, "metric", folder / "alexnet.pth")
    evaluate = {"use": "evaluate_tokenizer", "limit": IMAGES, "batch_size": 2, "pictures": 0}
    discrete = {**evaluate, "metrics": {name: table for name, table in metrics.items() if name not in OF_NOISE}}
    continuous = {**evaluate, "metrics": {name: metrics[name] for name in OF_NOISE}}
    sampled = {
        "use": "evaluate_generator",
        "reference": "train",
        "limit": IMAGES,
        "batch_size": 2,
        "metrics": tables(registry, "sample_metric", folder),
    }
    noisy = Project(folder / "noisy", **CONTINUOUS, train_tokenizer={"epochs": 0.2}).run()

    def projects(name: str) -> list[Project]:
        one = trained.later(folder / name / "trained", [discrete, "sample", sampled], load=("tokenizer", "generator"))
        one.stage("sample")["num_samples"] = SAMPLES
        return [one, noisy.later(folder / name / "noisy", [continuous])]

    def run_all() -> None:
        torch.distributed.destroy_process_group = lambda group=None: None  # the second project needs it, too
        for project in projects("two"):
            project.run()

    for project in projects("one"):
        project.run()
    ended = two_forked(run_all, folder / "said")
    assert [code for code, _ in ended] == [0, 0], ended
    return [
        {name: result for project in projects(which) for name, result in read_results(project.folder).items()}
        for which in ("one", "two")
    ]


def test_every_metric_has_the_value_of_one_process(measured, registry):
    one, two = measured
    assert one.keys() == two.keys()
    for name, result in one.items():
        # sums are made in another order; an image more or less would change a mean by a hundredth
        assert two[name].value == pytest.approx(result.value, rel=1e-4, abs=1e-6), name
    measuring = registry.names("metric") + registry.names("sample_metric")
    assert len(one) >= len(measuring) - len(ELSEWHERE)


def test_no_image_is_counted_twice(measured):
    one, two = measured
    for name, result in one.items():
        assert (two[name].num_images, two[name].num_reference) == (result.num_images, result.num_reference), name
    of_images = {result.num_images for name, result in two.items() if name.startswith("evaluate_tokenizer/")}
    of_samples = {result.num_images for name, result in two.items() if name.startswith("evaluate_generator/")}
    assert IMAGES in of_images <= {IMAGES, None}
    assert SAMPLES in of_samples <= {SAMPLES, IMAGES}  # some compare as many as there are real images
