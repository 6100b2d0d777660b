"""Trains variants of a recipe ("arms") with several seeds, and prints the mean and standard error of their results.

    python studies/arms.py --out runs/study
    python studies/arms.py --out runs/study --generators llamagen_gpt
    python studies/arms.py --out runs/study --recipe continuous_post_train --arms kl_vae mae_tok
    python studies/arms.py --out runs/study --recipe continuous_train --arms kl_vae gaussian interpolate

Each run is a separate process with one thread. All runs of an arm and a seed share a folder, so finished stages are
not repeated; the results of each generator are stored beside it. Prints one JSON object: for each generator and
result, the mean and standard error over seeds for each arm and for its difference from the first arm; and, if the
recipe post-trains, the change by each post-trained decoder, paired by seed. docs/results.md shows these tables.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

from robustok_core.runs.results import RESULTS_FILE, read_results
from robustok_core.values.result import Result

MAE_TOK = {
    "image_size": 32,
    "patch_size": 8,
    "width": 96,
    "depth": 2,
    "num_heads": 3,
    "num_latent_tokens": 32,
    "latent_width": 8,
    "layer_scale": 0.1,
    "decoder_drop_path": 0.0,
    "decoder_absolute_positions": "true",
    "mask_smallest": 0.1,
    "mask_largest": 0.3,
}
#: The changes that each arm makes to the recipe; options of a component that stays the same are not changed.
ARMS = {
    "none": ["perturbation.use=none"],
    "top_delta": ["perturbation.use=top_delta"],
    "kl_vae": ["perturbation.use=none"],
    "gaussian": ["perturbation.use=gaussian"],
    "interpolate": ["perturbation.use=interpolate", "perturbation.beta=0.1"],
    "mae_tok": [
        "perturbation.use=none",
        "tokenizer.use=mae_tok",
        "run.precision=bf16",
        *(f"tokenizer.{name}={value}" for name, value in MAE_TOK.items()),
        # A ViT learns more slowly than a convolutional network: half the batch size and more epochs.
        "stage.train_tokenizer.batch_size=32",
        "stage.train_tokenizer.epochs=24",
        "stage.train_tokenizer.optimizer.learning_rate=1.5e-3",
    ],
}
SIZE = {"width": 128, "depth": 4, "num_heads": 4}
GENERATORS = {
    "of the recipe": [],
    "llamagen_gpt": [
        "generator.use=llamagen_gpt",
        *(f"generator.{name}={value}" for name, value in SIZE.items()),
        *(f"generator.{name}=0.0" for name in ("token_dropout", "residual_dropout", "mlp_dropout")),
    ],
}
Results = dict[str, Result]


def run(recipe: str, arm: str, seed: int, generator: str, out: Path, extra: list[str]) -> Results:
    """Runs the recipe and returns its results."""
    name = f"{arm}_seed{seed}"
    changes = [*ARMS[arm], *GENERATORS[generator], *extra, f"run.name={name}", f"run.seed={seed}"]
    command = [sys.executable, "-m", "robustok_core", "run", recipe, "--out", str(out)]
    command += [word for change in changes for word in ("--set", change)]
    label = name if generator == "of the recipe" else f"{name}_{generator}"
    with (out / f"{label}.log").open("a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    results = out / f"{label}.json"
    results.write_text((out / name / RESULTS_FILE).read_text())
    return read_results(results)


def summary(values: list[float]) -> dict[str, object]:
    """Mean and standard error of the mean."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": round(mean(values), 4), "standard_error": round(error, 4), "values": [round(v, 4) for v in values]}


def difference(before: list[float], after: list[float]) -> dict[str, object]:
    """The summary of the differences, paired by seed."""
    return summary([b - a for a, b in zip(before, after, strict=True)])


def by_arm(results: dict[str, list[Results]]) -> dict[str, object]:
    """Each result of each arm, and its difference from the first arm's, paired by seed."""
    table: dict[str, object] = {}
    first, *others = results
    for name in results[first][0]:
        values = {arm: [run[name].value for run in runs if name in run] for arm, runs in results.items()}
        row: dict[str, object] = {arm: summary(numbers) for arm, numbers in values.items() if numbers}
        for arm in others:
            if values[arm]:
                row[f"{arm} - {first}"] = difference(values[first], values[arm])
        table[name] = row
    return table


def by_decoder(results: Results) -> dict[str, dict[str, float]]:
    """The results of the comparison after post-training, by decoder ("before", "sigma1", "sigma0.9", ...) and name."""
    values: dict[str, dict[str, float]] = {}
    for name, result in results.items():
        if decoder := result.details.get("decoder"):
            values.setdefault(decoder, {})[name.rpartition("/")[2].removeprefix(f"{decoder}_")] = result.value
    return values


def by_sigma(results: list[Results]) -> dict[str, object]:
    """The change by each post-trained decoder from the original one and from the control (sigma = 1), by seed."""
    seeds = [by_decoder(run) for run in results]
    decoders = sorted(seeds[0].keys() - {"before"}, reverse=True)
    table: dict[str, object] = {}
    for name in seeds[0]["before"]:
        values = {decoder: [seed[decoder][name] for seed in seeds] for decoder in ("before", *decoders)}
        row: dict[str, object] = {"before": summary(values["before"])}
        for decoder in decoders:
            row[f"{decoder} - before"] = difference(values["before"], values[decoder])
            if decoder != "sigma1" and "sigma1" in decoders:
                row[f"{decoder} - control"] = difference(values["sigma1"], values[decoder])
        table[name] = row
    return table


def main() -> None:
    """Runs what is missing and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="post_train")
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["none", "top_delta"])
    parser.add_argument("--generators", nargs="+", choices=GENERATORS, default=["of the recipe"])
    parser.add_argument("--jobs", type=int, default=2, help="runs in parallel")
    parser.add_argument("--set", action="append", default=[], dest="changes", help="KEY=VALUE, passed to every run")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, object] = {"recipe": options.recipe, "seeds": options.seeds, "set": options.changes}
    for generator in options.generators:
        # Seed by seed, so that arms can be compared even if the study is stopped early.
        plan = [(arm, seed) for seed in options.seeds for arm in options.arms]
        with ThreadPoolExecutor(options.jobs) as pool:
            runs = list(
                pool.map(lambda job: run(options.recipe, *job, generator, options.out, options.changes), plan)  # noqa: B023
            )
        results = {
            arm: [result for (name, _), result in zip(plan, runs, strict=True) if name == arm] for arm in options.arms
        }
        report[generator] = {"arms": by_arm(results)}
        if by_decoder(runs[0]):
            report[generator]["post_training"] = {arm: by_sigma(results[arm]) for arm in options.arms}  # type: ignore[index]
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
