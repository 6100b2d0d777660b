"""Post-training as a user runs it: pairs, decoders, what changes and what must not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustok_core import Recipe, RobustokError, hookimpl, load_registry, run
from robustok_core.errors import Interrupted
from robustok_core.runs.components import load_component
from robustok_core.runs.files import read_json, read_tensors
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.runs.folder import find_artifact
from robustok_core.runs.results import read_results
from robustok_stages.post_training.training_step import DecoderStep
from robustok_toolkit.pair_files import PairRows

LOSSES = {
    "reconstruction": {"use": "reconstruction"},
    "adversarial": {"use": "adversarial", "start": 0.0, "patch": {"width": 8, "layers": 2}},
}
COLOURS = {"use": "frechet", "features": {"use": "fashion_classifier"}}


def with_post_training(table: dict[str, Any], **stages: dict[str, Any]) -> dict[str, Any]:
    """A generation recipe with a discriminator, extended by post-training."""
    table["stage"][0]["losses"] = LOSSES
    table["post_trainer"] = {"use": "decoder", "sampling": {"steps": 2}}
    table["stage"] += [
        {"use": "make_pairs", "sigma": [0.5], "num_pairs": 48, "batch_size": 16, "part_size": 16},
        {"use": "post_train", "epochs": 2, "batch_size": 16, "log_every": 1, "losses": LOSSES},
        {
            "use": "compare_decoders",
            "num_samples": 20,
            "metrics": {"gfd": COLOURS},
            "tokenizer_metrics": {"psnr": {"use": "psnr"}},
            "sampling": {"steps": 2},
            "pictures": 4,
        },
    ]
    for stage in table["stage"]:
        stage |= stages.get(stage["use"], {})
    return table


def only(table: dict[str, Any], stage: str) -> list[dict[str, Any]]:
    """Only the stage of this name."""
    return [one for one in table["stage"] if one["use"] == stage]


def with_options(table: dict[str, Any], stage: str, **options: Any) -> list[dict[str, Any]]:
    """All stages, with other options of one."""
    return [one | options if one["use"] == stage else one for one in table["stage"]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[dict[str, Any], Path]:
    table = with_post_training(recipe_of(TO_SAMPLES))
    out = tmp_path_factory.mktemp("post_trained")
    run(Recipe.from_table(table), out=out)
    return table, out / table["run"]["name"]


def artifact(folder: Path, name: str, stage: str) -> Path:
    return folder / "artifacts" / f"{name}-{read_json(folder / 'run.json')['current'][stage]}"


def test_only_the_decoder_changes(trained):
    _, folder = trained
    before = read_tensors(artifact(folder, "tokenizer", "train_tokenizer") / "model.safetensors")
    after = read_tensors(find_artifact(folder, "tokenizer") / "model.safetensors")
    behind = ("post_quant_conv.", "pixel_decoder.")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(behind) for name in changed)
    assert {name for name in before if name.startswith(behind) and before[name].is_floating_point()} == changed


def test_the_newest_tokenizer_of_the_run_is_the_post_trained_one_and_has_the_same_latents(trained):
    _, folder = trained
    newest = find_artifact(folder, "tokenizer")
    assert newest == artifact(folder, "tokenizer", "compare_decoders")
    registry = load_registry()
    first = load_component(registry, artifact(folder, "tokenizer", "train_tokenizer"))
    assert latent_fingerprint(load_component(registry, newest)) == latent_fingerprint(first)


def test_every_pair_knows_its_image_and_the_control_holds_the_images_own_codes(trained):
    table, folder = trained
    pairs = artifact(folder, "pairs", "make_pairs")
    rows = np.load(pairs / "rows.npy")
    index = read_json(pairs / "latents.json")
    assert len(rows) == len(set(rows.tolist())) == 48
    assert index["sigma"] == [1.0, 0.5]
    registry = load_registry()
    tokenizer = load_component(registry, artifact(folder, "tokenizer", "train_tokenizer"))
    images = registry.build("dataset", table["data"]).train
    with torch.no_grad():
        # the control's images are the reconstructions, encoded again
        from robustok_core.values.images import from_uint8, to_uint8

        real = images.load(rows.tolist())
        again = tokenizer.encode(from_uint8(to_uint8(tokenizer.decode(tokenizer.encode(real.images))))).codes
    parts = index["splits"]["sigma1"]["parts"]
    found = np.concatenate([np.load(pairs / "parts" / part["file"]) for part in parts])[:, 0]
    assert np.array_equal(found.astype(np.int64), again.numpy())
    assert np.array_equal(np.load(pairs / index["splits"]["sigma1"]["labels"]), real.labels.numpy())


def test_results_of_before_and_after_are_comparable(trained):
    _, folder = trained
    results = read_results(folder)
    stage = "compare_decoders/"
    names = {name.removeprefix(stage) for name in results if name.startswith(stage)}
    for arm in ("before", "sigma1", "sigma0.5"):
        wanted = ("gfd_fashion_classifier", "guided_gfd_fashion_classifier", "psnr")
        assert {f"{arm}_{name}" for name in wanted} <= names
        for name in wanted:
            details = results[f"compare_decoders/{arm}_{name}"].details
            assert (details["decoder"], details["guided"]) == (arm, "guided" in name)
            assert details["sigma"] == {"before": None, "sigma1": 1.0, "sigma0.5": 0.5}[arm]
    assert results["compare_decoders/kept_sigma"].value == 0.5
    pictures = artifact(folder, "comparison", "compare_decoders")
    assert (pictures / "samples.png").is_file()
    assert (pictures / "sigma.png").is_file()


def steps_of_arms(folder: Path) -> dict[str, list[int]]:
    steps: dict[str, list[int]] = {}
    for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        if line["stage"] == "post_train":
            steps.setdefault(line["fingerprint"].rpartition("-")[2], []).append(line["step"])
    return steps


def test_decoders_see_the_same_images_in_the_same_order(trained, tmp_path, monkeypatch):
    table, _ = trained
    seen: list[int] = []
    real = DecoderStep.forward

    def forward(step, batch, draws, progress, earlier):
        seen.extend(batch.indices.tolist())
        return real(step, batch, draws, progress, earlier)

    monkeypatch.setattr(DecoderStep, "forward", forward)
    run(Recipe.from_table(table), out=tmp_path)
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert first == second
    assert sorted(first) == sorted(2 * list(set(first)))  # two epochs
    assert steps_of_arms(tmp_path / table["run"]["name"]) == {
        name: [1, 2, 3, 4, 5, 6] for name in ("sigma1", "sigma0.5")
    }


class StopAt:
    """Interrupts a stage after its n-th logged step."""

    def __init__(self, stage: str, times: int) -> None:
        self.stage, self.times = stage, times

    @hookimpl
    def robustok_step_logged(self, folder, stage, step, values):
        self.times -= stage == self.stage
        if self.times == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("times", [2, 9])
def test_an_interrupted_post_training_ends_with_the_same_weights(trained, tmp_path, times):
    table, folder = trained
    table = {**table, "stage": with_options(table, "post_train", checkpoint_every=1)}
    registry = load_registry()
    registry.add_plugin(StopAt("post_train", times), "stop")
    with pytest.raises(Interrupted):
        run(Recipe.from_table(table), registry=registry, out=tmp_path)
    run(Recipe.from_table(table), out=tmp_path)
    again = tmp_path / table["run"]["name"]
    assert read_json(again / "results.json") == read_json(folder / "results.json")
    first, second = (read_tensors(find_artifact(one, "tokenizer") / "model.safetensors") for one in (folder, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_two_processes_make_the_same_pairs_and_decoders(trained, tmp_path):
    table, folder = trained
    other = run_on_two({**table, "run": {**table["run"], "name": "two"}}, tmp_path)
    for name in ("sigma1", "sigma0.5"):
        codes = []
        for one in (folder, other):
            pairs = artifact(one, "pairs", "make_pairs")
            parts = read_json(pairs / "latents.json")["splits"][name]["parts"]
            codes.append(np.concatenate([np.load(pairs / "parts" / part["file"]) for part in parts]))
        assert (codes[0] == codes[1]).mean() > 0.9  # the tokenizers differ by the order of sums
    assert steps_of_arms(other) == steps_of_arms(folder)
    results = [read_results(one) for one in (folder, other)]
    assert results[0].keys() == results[1].keys()
    for arm in ("sigma1", "sigma0.5"):
        psnr, psnr_on_two = (result[f"compare_decoders/{arm}_psnr"].value for result in results)
        assert psnr_on_two == pytest.approx(psnr, abs=0.1)
        assert psnr_on_two != results[1]["compare_decoders/before_psnr"].value


def discriminator_steps(tensors: dict[str, torch.Tensor], prefix: str) -> set[float]:
    return {float(value) for name, value in tensors.items() if name.startswith(f"{prefix}/step/")}


def test_the_discriminator_of_main_training_continues_where_it_stopped(trained):
    _, folder = trained
    held = read_tensors(artifact(folder, "tokenizer", "train_tokenizer") / "opponents.safetensors")
    (main_steps,) = discriminator_steps(held, "optimizer/adversarial")
    assert main_steps > 0
    for arm in ("sigma1", "sigma0.5"):
        (kept,) = (folder / "checkpoints").glob(f"post_train-*-{arm}/*")
        state = read_tensors(kept / "state.safetensors")
        own_steps = read_json(kept / "state.json")["step"]
        assert discriminator_steps(state, "optimizer/adversarial_opponent") == {main_steps + own_steps}


def refused(table: dict[str, Any], out: Path, **kwargs: Any) -> str:
    with pytest.raises(RobustokError) as caught:
        run(Recipe.from_table(table), out=out, **kwargs)
    return str(caught.value)


def test_a_missing_discriminator_is_reported_before_anything_is_trained(trained, tmp_path):
    table, folder = trained.table, trained.folder
    table = with_post_training({**table, "stage": [dict(stage) for stage in table["stage"]]})
    table["load"] = {"tokenizer": str(folder), "generator": str(folder)}
    table["stage"] = table["stage"][-3:]
    table["run"] = {**table["run"], "name": "later"}
    assert "has no discriminator to reuse" in refused(table, tmp_path)
    assert not (tmp_path / "later").exists()


def test_a_discriminator_that_main_training_will_not_save_is_reported_before_main_training(tmp_path):
    table = with_post_training(recipe_of(TO_SAMPLES))
    table["stage"][0]["losses"] = {"reconstruction": {"use": "reconstruction"}}
    assert "has no discriminator to reuse" in refused(table, tmp_path)
    table["stage"][0]["losses"] = {"reconstruction": {"use": "reconstruction"}, "gan": LOSSES["adversarial"]}
    said = refused(table, tmp_path)
    assert "main training has no opponent for a loss 'adversarial', only for gan" in said
    assert "stage.post_train.losses.adversarial" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"guidance": {"scale": 2.0}}, "post_trainer.guidance.scale: guidance of scale 2 needs a generator"),
        ({"sampling": {"stops": 2}}, "post_trainer.sampling.stops"),
    ],
)
def test_pairs_that_the_generator_cannot_make_are_refused_before_it_is_trained(tmp_path, options, said):
    table = with_post_training(recipe_of(TO_SAMPLES))
    table["generator"]["label_dropout"] = 0.0
    table["stage"][-1]["guidance"] = {"scale": 1.0}
    table["post_trainer"] |= options
    assert said in refused(table, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_fresh_discriminator_needs_none(trained, tmp_path):
    table, folder = trained.table, trained.folder
    table = with_post_training(
        {**table, "stage": [dict(stage) for stage in table["stage"]]}, post_train={"discriminator": "fresh"}
    )
    table["load"] = {"tokenizer": str(folder), "generator": str(folder)}
    table["stage"] = table["stage"][-3:]
    results = run(Recipe.from_table(table), out=tmp_path)
    assert "compare_decoders/sigma0.5_gfd_fashion_classifier" in results


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": 0.3, "optimizer": {"warmup": 0.5}}, "stage.post_train.optimizer.warmup: the learning rate is 0"),
        ({"batch_size": 64}, "stage.post_train.batch_size: a batch of 64 images is larger than"),
    ],
)
def test_a_batch_that_does_not_fit_the_48_pairs_is_refused_before_anything_runs(
    trained, tmp_path, options, said, loaded
):
    table, folder = trained
    table = {**table, "stage": with_options(table, "post_train", **options)}
    if loaded:
        table = {**table, "stage": only(table, "post_train"), "load": {"pairs": str(folder)}}
        table["load"]["tokenizer"] = str(artifact(folder, "tokenizer", "train_tokenizer"))
    assert said in refused(table, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"post_train": {"losses": {}}}, "stage.post_train: losses: there is no term"),
        (
            {"compare_decoders": {"num_samples": 21, "metrics": {"kid": {"use": "kid", "subset_size": 21}}}},
            "stage.compare_decoders.metrics.kid: the reference: 20 images are too few for subsets of 21",
        ),
        (
            {"compare_decoders": {"metrics": {}}},
            "stage.compare_decoders: metrics: the first metric chooses the sigma to keep",
        ),
    ],
)
def test_missing_losses_or_metrics_are_refused(tmp_path, options, said):
    assert said in refused(with_post_training(recipe_of(TO_SAMPLES), **options), tmp_path)


@pytest.mark.parametrize("key", ["compare", "keep"])
def test_an_option_that_moved_to_compare_decoders_says_so(tmp_path, key):
    said = refused(with_post_training(recipe_of(TO_SAMPLES), post_train={key: {}}), tmp_path)
    assert f"stage.post_train.{key}: unknown key '{key}'" in said
    assert "`compare_decoders`" in said


def test_an_explicit_sigma_to_keep_needs_no_metric(registry):
    table = with_post_training(recipe_of(TO_SAMPLES), compare_decoders={"keep": 0.5, "metrics": {}})
    assert Recipe.from_table(table).resolve(registry).stages[-1].spec.config.keep == 0.5


def test_sigma_outside_of_0_to_1_is_refused(tmp_path):
    table = with_post_training(recipe_of(TO_SAMPLES), make_pairs={"sigma": [0.5, 1.5]})
    assert "stage.make_pairs.sigma" in refused(table, tmp_path)


def test_sigmas_that_would_share_their_files_are_refused(tmp_path):
    table = with_post_training(recipe_of(TO_SAMPLES), make_pairs={"sigma": [0.5, 0.50000001]})
    assert "two values of sigma agree to 6 digits" in refused(table, tmp_path)


@pytest.mark.parametrize("damage", ["cut", "fewer", "beyond", "missing"])
def test_pairs_with_damaged_image_indices_are_refused(trained, tmp_path, damage):
    table, folder = trained
    registry = load_registry()
    pairs = shutil.copytree(artifact(folder, "pairs", "make_pairs"), tmp_path / "pairs")
    rows, file = np.load(pairs / "rows.npy"), pairs / "rows.npy"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    elif damage == "missing":
        file.unlink()
    else:
        np.save(file, rows[:-1] if damage == "fewer" else rows + 10**6)
    tokenizer = load_component(registry, artifact(folder, "tokenizer", "train_tokenizer"))
    images = registry.build("dataset", table["data"]).train
    with pytest.raises(RobustokError, match="image indices"):
        PairRows(pairs, 0.5, images, tokenizer=latent_fingerprint(tokenizer))


def test_pairs_of_another_sigma_or_tokenizer_are_refused_by_name(trained, tmp_path):
    table, folder = trained
    later = {**table, "run": {**table["run"], "name": "later"}}
    later["load"] = {"tokenizer": str(artifact(folder, "tokenizer", "train_tokenizer"))}
    comparing = {
        **later,
        "stage": only({"stage": with_options(table, "compare_decoders", keep=0.25)}, "compare_decoders"),
    }
    comparing["load"] = later["load"] | {"generator": str(folder), "decoders": str(folder)}
    assert "stage.compare_decoders.keep: there is no decoder for sigma = 0.25" in refused(comparing, tmp_path)
    other = with_post_training(recipe_of(TO_SAMPLES, train_tokenizer={"epochs": 2}))
    run(Recipe.from_table({**other, "stage": other["stage"][:-3]}), out=tmp_path / "other")
    later["stage"] = only(table, "post_train")
    later["load"] = {"pairs": str(folder), "tokenizer": str(tmp_path / "other" / other["run"]["name"])}
    assert "these pairs were not made with the tokenizer in " in refused(later, tmp_path)


def test_what_is_compared_by_default(registry):
    table = with_post_training(recipe_of(TO_SAMPLES))
    table["stage"][-1] = {"use": "compare_decoders"}
    compare = Recipe.from_table(table).resolve(registry).stages[-1].spec.config
    assert compare.num_samples == 5000
    assert set(compare.metrics) == {"gfd"}
    assert set(compare.tokenizer_metrics) == {"rfd", "pfd"}


def test_another_comparison_does_not_train_decoders_again(trained, tmp_path):
    table, folder = trained
    shutil.copytree(folder, tmp_path / folder.name)
    changed = {**table, "stage": with_options(table, "compare_decoders", num_samples=30)}
    before = (folder / "metrics.jsonl").read_text()
    results = run(Recipe.from_table(changed), out=tmp_path)
    assert results["compare_decoders/before_gfd_fashion_classifier"].num_images == 30
    assert (tmp_path / folder.name / "metrics.jsonl").read_text() == before


def test_a_post_trained_tokenizer_and_pairs_of_another_generator_are_refused(trained, tmp_path):
    table, folder = trained
    later = {**table, "run": {**table["run"], "name": "later"}}
    inputs = {"make_pairs": ["generator"], "post_train": ["pairs"], "compare_decoders": ["generator", "decoders"]}
    for stage, loaded in inputs.items():
        again = {**later, "stage": only(table, stage), "load": dict.fromkeys(["tokenizer", *loaded], str(folder))}
        assert "this tokenizer is already post-trained" in refused(again, tmp_path)
    first = artifact(folder, "tokenizer", "train_tokenizer")
    other = with_post_training(recipe_of(TO_SAMPLES, train_generator={"epochs": 2}))
    other["load"], other["stage"] = {"tokenizer": str(first)}, other["stage"][2:4]
    other["stage"] = [stage for stage in other["stage"] if stage["use"] == "train_generator"]
    other["load"]["latents"] = str(folder)
    other["run"] = {**other["run"], "name": "other"}
    run(Recipe.from_table(other), out=tmp_path)
    later["stage"] = only(table, "compare_decoders")
    later["load"] = {"tokenizer": str(first), "generator": str(tmp_path / "other"), "decoders": str(folder)}
    assert "these decoders were not trained with the generator in " in refused(later, tmp_path)


def test_a_sigma_to_keep_without_pairs_is_refused_before_anything_runs(tmp_path):
    table = with_post_training(recipe_of(TO_SAMPLES), compare_decoders={"keep": 0.33})
    assert "stage.compare_decoders.keep: there is no decoder for sigma = 0.33" in refused(table, tmp_path)
    assert not list(tmp_path.iterdir())


def test_loaded_pairs_that_were_made_in_another_way_are_refused_by_option(trained, tmp_path):
    table, folder = trained
    later = {**table, "stage": only(table, "post_train"), "run": {**table["run"], "name": "later"}}
    later["load"] = {"tokenizer": str(artifact(folder, "tokenizer", "train_tokenizer")), "pairs": str(folder)}
    later["post_trainer"] = table["post_trainer"] | {"pairs": "latents"}
    assert "the pairs of [load] were made with pairs = 'images', not 'latents'" in refused(later, tmp_path)
    assert not (tmp_path / "later").exists()
