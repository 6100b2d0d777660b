"""`robustok evaluate` as a user meets it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from project import Project
from robustok_core import ImageBatch, Registry
from robustok_core.cli import main
from robustok_core.errors import RobustokError, raise_all
from robustok_core.runs.results import read_results
from robustok_core.values.images import to_uint8
from robustok_metrics.kid import KID
from robustok_metrics.sample_frechet import SampleFrechet
from robustok_toolkit.image_files import write_samples

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def batch(registry: Registry) -> ImageBatch:
    return registry.build("dataset", {"use": "fashion_mnist"}).validation.load(range(110))


@pytest.fixture
def command(capsys: Any, monkeypatch: Any, tmp_path: Path, batch: ImageBatch) -> Command:
    """Runs `robustok evaluate` beside samples.npz (60 images), real.npz (50 others) and a folder of these."""
    monkeypatch.chdir(tmp_path)
    pixels = to_uint8(batch.images).permute(0, 2, 3, 1).numpy()
    write_samples(Path("samples.npz"), iter(pixels[:60]), batch.labels[:60], image_size=32)
    write_samples(Path("real.npz"), iter(pixels[60:]), batch.labels[60:], image_size=32)
    Path("real").mkdir()
    for number, picture in enumerate(pixels[60:]):
        Image.fromarray(picture).save(f"real/{number:03d}.png")

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", *arguments])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def refused(command: Command) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        code, _, output = command(*arguments)
        assert code == 2, output
        assert output.count("error: ") == 1, output
        return output

    return run


SMALL = ("--features", "fashion_classifier")


def test_results_are_printed_and_written_with_their_sources(command: Command) -> None:
    code, output, _ = command("samples.npz", "real.npz", *SMALL, "--out", "results.json")
    assert code == 0
    written = json.loads(Path("results.json").read_text())
    assert (written["samples"], written["reference"]) == ("samples.npz", "real.npz")
    assert written["features"].startswith("fashion_classifier-")
    results = read_results(Path("results.json"))
    distance = written["results"]["gfd_fashion_classifier"]
    assert distance == {
        "value": results["gfd_fashion_classifier"].value,
        "higher_is_better": False,
        "num_images": 60,
        "num_reference": 50,
    }
    assert {"gfd_fashion_classifier", "precision_fashion_classifier", "recall_fashion_classifier"} < set(results)
    for name, result in results.items():
        line = next(line for line in output.splitlines() if line.split()[:1] == [name])
        assert line.split()[1:3] == [f"{result.value:.6g}", "60"]


def test_distance_of_a_set_from_itself_is_negligible(command: Command) -> None:
    for reference in ("samples.npz", "real.npz"):
        command("samples.npz", reference, *SMALL, "--metric", "frechet", "--out", f"{reference}.json")
    own, other = (
        json.loads(Path(f"{name}.npz.json").read_text())["results"]["gfd_fashion_classifier"]["value"]
        for name in ("samples", "real")
    )
    assert own < 1e-4 * other


def test_folder_gives_what_the_file_of_the_same_images_gives(command: Command) -> None:
    for reference in ("real", "real.npz"):
        command("samples.npz", reference, *SMALL, "--out", f"{reference}.json")
    one, two = (json.loads(Path(name).read_text())["results"] for name in ("real.json", "real.npz.json"))
    assert one == two


def test_few_images_are_noted_before_the_numbers(command: Command) -> None:
    _, output, _ = command("samples.npz", "real.npz", *SMALL, "--metric", "frechet")
    assert "note: samples.npz: 60 images are too few for 96 features" in output
    assert output.index("covariance is singular") < output.index("gfd_fashion_classifier")


def test_samples_sorted_by_class_are_noted_and_shuffling_changes_the_score(command: Command, batch: ImageBatch) -> None:
    order = torch.argsort(batch.labels, stable=True)
    pixels = to_uint8(batch.images[order]).permute(0, 2, 3, 1).numpy()
    write_samples(Path("sorted.npz"), iter(pixels), batch.labels[order], image_size=32)
    score = ("--metric", "inception_score", "--out")
    _, output, _ = command("sorted.npz", "real.npz", *SMALL, *score, "in_order.json")
    assert "sorted by class" in output
    command("sorted.npz", "real.npz", *SMALL, "--set", "inception_score.shuffle=true", *score, "shuffled.json")
    in_order, shuffled = (
        json.loads(Path(name).read_text())["results"]["classifier_score_fashion_classifier"]["value"]
        for name in ("in_order.json", "shuffled.json")
    )
    assert shuffled > 2 * in_order


def test_options_reach_the_metric(command: Command) -> None:
    options = ("--metric", "kid", "--set", "kid.subset_size=20", "--set", "kid.subsets=3")
    code, output, _ = command("samples.npz", "real.npz", *SMALL, *options)
    assert code == 0
    assert "kd_fashion_classifier" in output


def test_a_failed_inception_download_gives_a_hint(refused: Callable[..., str], monkeypatch: Any) -> None:
    def out_of_reach(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", "empty")
    monkeypatch.setattr("urllib.request.urlopen", out_of_reach)
    output = refused("samples.npz", "real.npz")
    assert "features: cannot get the weights of Inception from github.com: no route to host" in output
    assert "use the features efficientnet_lite0" in output


def test_precision_is_left_out_for_statistics_which_other_features_refuse(command: Command) -> None:
    np.savez("statistics.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    code, output, errors = command("samples.npz", "statistics.npz", *SMALL)
    assert "note: precision_recall left out: the reference has no images" in output
    assert code == 2
    assert "mu and sigma are of the published Inception's features, not of 'fashion_classifier'" in errors


def test_statistics_of_another_network_are_refused_before_any_metric_is_measured(command: Command) -> None:
    np.savez("statistics.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    chosen = ("--metric", "inception_score", "--metric", "frechet")
    code, _, errors = command("samples.npz", "statistics.npz", *SMALL, *chosen)
    assert code == 2
    assert "frechet: the reference: mu and sigma are of the published Inception's features" in errors


@pytest.mark.parametrize(
    ("metric", "option", "results"),
    [
        ("density_coverage", "neighbours=3", ["density_fashion_classifier", "coverage_fashion_classifier"]),
        ("mind", "num_images=50", ["md_fashion_classifier"]),
        ("cmmd", "least_images=50", ["mmd_fashion_classifier"]),
    ],
)
def test_metrics_of_sets_are_measured_outside_of_a_run(
    command: Command, metric: str, option: str, results: list[str]
) -> None:
    arguments = ("samples.npz", "real.npz", *SMALL, "--metric", metric)
    code, output, _ = command(*arguments, "--set", f"{metric}.{option}", "--json")
    assert code == 0
    assert list(json.loads(output)["results"]) == results


FDR = ("--metric", "fdr", "--set", 'fdr.networks={one={use="fashion_classifier"}}')


def test_fdr_takes_further_real_images_from_a_path(command: Command, batch: ImageBatch) -> None:
    pixels = to_uint8(batch.images).permute(0, 2, 3, 1).numpy()
    write_samples(Path("held_out.npz"), iter(pixels[20:60]), batch.labels[20:60], image_size=32)
    code, output, _ = command("samples.npz", "real.npz", *FDR, "--set", "fdr.held_out=held_out.npz")
    assert code == 0
    assert "fdr_fashion_classifier" in output
    assert "fd_val_fashion_classifier" in output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("samples.npz", "real.npz", *FDR), "no file or folder 'validation'"),
        (("samples.npz", "real", *FDR, "--set", "fdr.held_out=real"), "'real' is the reference"),
        (("nothing.npz", "real.npz"), "nothing.npz: there is no such file"),
        (("samples.npz", "real.npz", "--metric", "fretchet"), "no sample_metric is called 'fretchet'"),
        (("samples.npz", "real.npz", "--features", "inceptoin"), "no features is called 'inceptoin'"),
        (("samples.npz", "real.npz", *SMALL, "--metric", "kid"), "60 images are too few for subsets of 1000"),
        (("samples.npz", "real.npz", *SMALL, "--set", "shuffle=true"), "--set needs METRIC.OPTION=VALUE"),
        (("samples.npz", "real.npz", *SMALL, "--set", "kid.subsets=3"), "the metric 'kid', which is not measured"),
        (("samples.npz", "real.npz", *SMALL, "--set", "frechet.k=3"), "error: frechet.k: unknown key 'k'"),
        (("samples.npz", "real.npz", *SMALL, "--set", "frechet.use=kid"), "--set cannot exchange the component"),
        (("samples.npz", "real.npz", *SMALL, "--set", "features.use=dinov2"), "--set cannot exchange the component"),
        (("samples.npz", "real.npz", *SMALL, "--out", "real.npz"), "this already exists"),
    ],
)
def test_each_mistake_gives_one_message(refused: Callable[..., str], arguments: tuple[str, ...], reason: str) -> None:
    assert reason in refused(*arguments)


@pytest.mark.parametrize(
    ("sides", "reason"),
    [
        ([], "error: fdr: held_out: there are no images in this folder"),
        ([64] * 4, "error: fdr: the samples have 32 x 32 pixels, the images of held_out 64 x 64"),
    ],
)
def test_held_out_images_that_cannot_be_compared_are_refused_before_anything_is_measured(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, sides: list[int], reason: str
) -> None:
    Path("held_out").mkdir()
    for number, side in enumerate(sides):
        Image.new("RGB", (side, side)).save(f"held_out/{number}.png")
    monkeypatch.setattr(SampleFrechet, "compute", lambda *_: pytest.fail("a metric was measured"))
    metrics = ("--metric", "frechet", *FDR, "--set", "fdr.held_out=held_out")
    assert reason in refused("samples.npz", "real.npz", *SMALL, *metrics)


def test_held_out_images_of_another_size_are_compared_on_request(command: Command) -> None:
    Path("held_out").mkdir()
    for number in range(9):
        Image.new("RGB", (64, 64), (20 * number, 9, 9)).save(f"held_out/{number}.png")
    held_out = ("--set", "fdr.held_out=held_out", "--mixed-sizes")
    code, output, _ = command("samples.npz", "real.npz", *FDR, *held_out)
    assert code == 0
    assert "fdr_fashion_classifier" in output


def test_held_out_images_of_unknown_number_are_refused(refused: Callable[..., str]) -> None:
    np.savez("statistics.npz", mu=np.zeros(8), sigma=np.eye(8))
    output = refused("samples.npz", "real", *FDR, "--set", "fdr.held_out=statistics.npz")
    assert "error: fdr: statistics.npz: mu and sigma are of an unknown number of images" in output
    assert "--set fdr.held_out=PATH" in output


def test_a_missing_device_is_refused(refused: Callable[..., str]) -> None:
    assert "there is no device 'gpu' here" in refused("samples.npz", "real.npz", *SMALL, "--device", "gpu")


def test_pictures_of_other_sizes_are_compared_only_on_request_and_with_a_note(command: Command) -> None:
    pixels = np.load("real.npz")["arr_0"].repeat(2, axis=1).repeat(2, axis=2)
    write_samples(Path("large.npz"), iter(pixels), torch.zeros(50, dtype=torch.int64), image_size=64)
    arguments = ("samples.npz", "large.npz", "--features", "fashion_classifier", "--metric", "frechet")
    code, output, errors = command(*arguments, "--out", "never.json")
    assert code == 2
    assert output == ""
    problem = "the images of samples.npz have 32 x 32 pixels, those of large.npz 64 x 64"
    assert f"error: {problem}\n" in errors
    assert not Path("never.json").exists()
    code, output, _ = command(*arguments, "--mixed-sizes", "--out", "mixed.json")
    assert code == 0
    assert f"note: {problem}\n" in output
    assert json.loads(Path("mixed.json").read_text())["picture_sizes"] == [[32, 32], [64, 64]]


def test_images_need_not_be_square(command: Command) -> None:
    Path("wide").mkdir()
    for number, pixels in enumerate(np.load("real.npz")["arr_0"]):
        Image.fromarray(pixels[:24]).save(f"wide/{number}.png")
    arguments = ("--features", "fashion_classifier", "--metric", "frechet", "--out", "found.json")
    code, _, errors = command("wide", "wide", *arguments)
    assert code == 0, errors
    (distance,) = json.loads(Path("found.json").read_text())["results"].values()
    assert distance["value"] == pytest.approx(0.0, abs=1e-3)


def test_statistics_of_a_reference_have_no_picture_size_to_compare(command: Command, monkeypatch: Any) -> None:
    np.savez("statistics.npz", mu=np.zeros(8), sigma=np.eye(8))
    _, _, errors = command("samples.npz", "statistics.npz", "--features", "fashion_classifier", "--metric", "frechet")
    assert "pixels" not in errors  # it is refused for its network


def test_a_decompression_bomb_in_a_folder_is_named(refused: Callable[..., str], monkeypatch: Any) -> None:
    Image.new("1", (1500, 1500)).save("real/000.png")
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1_000_000)
    output = refused("samples.npz", "real", *SMALL)
    assert "real/000.png: this image cannot be read: DecompressionBombError: " in output


def test_a_folder_in_a_folder_called_like_a_picture_is_searched(command: Command) -> None:
    Path("real/IMG_1.jpg").mkdir()
    Path("real/000.png").rename("real/IMG_1.jpg/000.png")
    Path("real/notes.heic").write_bytes(b"x")
    code, output, _ = command("samples.npz", "real", *SMALL)
    assert code == 0
    assert "50" in output


def test_every_metric_with_too_few_images_is_named_before_features_are_computed(command: Command) -> None:
    metrics = ("--metric", "kid", "--metric", "precision_recall", "--set", "precision_recall.neighbours=50")
    code, output, errors = command("samples.npz", "real.npz", *SMALL, *metrics)
    assert code == 2
    assert "error: kid: the samples: 60 images are too few for subsets of 1000\n" in errors
    assert "hint: lower subset_size, as with --set kid.subset_size=50\n" in errors
    assert "error: precision_recall: the reference: 50 images are too few for 50 neighbours each\n" in errors
    assert "features" not in output, "nothing was computed"
    change = ("--set", "kid.subset_size=50", "--set", "kid.subsets=2")
    assert command("samples.npz", "real.npz", *SMALL, "--metric", "kid", *change)[0] == 0


def test_a_network_that_no_metric_reads_is_refused_and_not_built(command: Command, capsys: Any) -> None:
    """The default, Inception, would have to be downloaded first."""
    Path("others").mkdir()
    for number in range(20):
        Path(f"real/{number:03d}.png").rename(f"others/{number:03d}.png")
    own = ("--set", 'fdr.networks={one={use="fashion_classifier"}}', "--set", "fdr.held_out=others")
    words = ("samples.npz", "real", "--metric", "fdr", *own, "--json")
    code, output, errors = command(*words)
    assert code == 0, errors
    assert not {"features", "network"} & set(json.loads(output))
    command("samples.npz", "real", "--metric", "fdr", *own, "--out", "a.json")
    shutil.copytree("others", "more")
    command("samples.npz", "real", "--metric", "fdr", *own[:3], "fdr.held_out=more", "--out", "b.json")
    assert "held_out" in compared(capsys, "a.json", "b.json"), "the numbers were measured otherwise"
    for more, where in ((SMALL, "--features"), (("--set", "features.weights=x.pth"), "--set features.weights")):
        code, _, errors = command(*words, *more)
        assert code == 2
        assert f"error: {where}: no metric that is measured has a network to choose" in errors


def test_what_is_wrong_with_sets_is_said_before_anything_is_downloaded(command: Command, monkeypatch: Any) -> None:
    monkeypatch.setattr("robustok_core.runs.downloads.provide", None)
    for words, message in (
        (("--metric", "fdr", "--set", "fdr.held_out=nowhere"), "there is no file or folder 'nowhere'"),
        (("--metric", "kid"), "are too few for subsets of 1000"),
    ):
        code, _, errors = command("samples.npz", "real", *words)
        assert code == 2
        assert message in errors


def test_all_problems_that_a_metric_finds_are_named_one_by_one(command: Command, monkeypatch: Any) -> None:
    found = [RobustokError("60 are odd", hint="lower subset_size"), RobustokError("50 are even", where="real")]
    monkeypatch.setattr(KID, "check", lambda *_: raise_all(found))
    code, _, errors = command("samples.npz", "real.npz", *SMALL, "--metric", "kid")
    assert code == 2
    assert "error: kid: 60 are odd\n  hint: lower subset_size, as with --set kid.subset_size=50\n" in errors
    assert "error: kid: real: 50 are even\n  hint: use more images\n" in errors


def test_results_as_json_are_what_out_writes_and_nothing_else_is_printed(command: Command) -> None:
    code, output, _ = command(
        "samples.npz", "real.npz", "--features", "fashion_classifier", "--json", "--out", "results.json"
    )
    assert code == 0
    assert json.loads(output) == json.loads(Path("results.json").read_text())


def test_results_that_cannot_be_written_are_printed_all_the_same(command: Command) -> None:
    Path("file").write_text("mine")
    words = ("samples.npz", "real.npz", *SMALL, "--metric", "frechet", "--json", "--out")
    name = f"{'long' * 70}.json"
    code, output, errors = command(*words, name)
    assert code == 1
    assert "gfd_fashion_classifier" in json.loads(output)["results"]
    assert f"error: {name}: cannot write" in errors
    code, output, errors = command(*words, "file/results.json")
    assert (code, output) == (2, ""), "known before anything is measured"
    assert "error: file/results.json: cannot write" in errors


def compared(capsys: Any, *files: str) -> str:
    with pytest.raises(SystemExit):
        main(["compare", *files])
    return str(capsys.readouterr().out)


def test_files_measured_with_other_options_or_another_reference_of_the_same_name_have_no_star(
    command: Command, capsys: Any, batch: ImageBatch
) -> None:
    def measure(out: str, *options: str, reference: str = "real.npz") -> str:
        assert command("samples.npz", reference, *SMALL, *options, "--out", out)[0] == 0
        return out

    kid = ("--metric", "kid", "--set", "kid.subset_size=20")
    one, other = measure("one.json", *kid), measure("other.json", *kid[:3], "kid.subset_size=30")
    shown = compared(capsys, one, other)
    assert "note: kd_fashion_classifier: different metrics.kid.subset_size (one.json: 20, other.json: 30)" in shown
    assert "*" not in shown

    frechet = ("--metric", "frechet")
    one, moved = measure("a.json", *frechet), measure("b.json", *frechet, reference=str(Path("real.npz").resolve()))
    assert "note:" not in compared(capsys, one, moved)
    pixels = to_uint8(batch.images).permute(0, 2, 3, 1).numpy()
    Path("real.npz").unlink()
    write_samples(Path("real.npz"), iter(pixels[50:100]), batch.labels[50:100], image_size=32)
    shown = compared(capsys, one, measure("c.json", *frechet))
    assert "note: gfd_fashion_classifier: different content of the reference" in shown
    assert "*" not in shown


def test_quiet_leaves_out_notes(command: Command) -> None:
    usual = command("samples.npz", "real.npz", "--features", "fashion_classifier")[1]
    quiet = command("samples.npz", "real.npz", "--features", "fashion_classifier", "--quiet")[1]
    assert "note: " in usual
    assert "note: " not in quiet
    assert quiet in usual


def test_a_run_is_no_set_of_images_and_its_samples_are_named(refused: Callable[..., str], trained: Project) -> None:
    for arguments in ((str(trained.folder),), (str(trained.folder), "real.npz"), ("samples.npz", str(trained.folder))):
        output = refused(*arguments)
        assert "this is a run, not a set of images" in output
        assert f"robustok evaluate {trained.artifact('samples') / 'samples.npz'}" in output


def test_one_set_alone_is_refused(command: Command) -> None:
    code, _, errors = command("samples.npz")
    assert (code, "Missing argument 'REFERENCE'" in errors) == (2, True)
