"""Trainings that differ in one thing, generators on top, and post-training: arms x seeds, mean and standard error.

    python studies/arms.py --out runs/study
    python studies/arms.py --out runs/study --generators llamagen_gpt
    python studies/arms.py --out runs/study --recipe continuous_post_train --arms kl_vae mae_tok
    python studies/arms.py --out runs/study --recipe continuous_train --arms kl_vae gaussian interpolate

Each run is a process of its own with one thread. All of an arm and a seed share a folder, in which what is done is not
done again; the results of each generator are kept beside it. Prints one JSON object: for each generator and result the
mean and standard error over the seeds of each arm and of its difference from the first one; and, where the recipe
post-trains, what each post-trained decoder changed, paired by seed. docs/results.md shows these tables.
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
#: What each arm changes in the recipe; the recipe's own options stay where the component does.
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
        # A ViT learns slower than a convolutional network: half the batch and more epochs.
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
COUNTS = ("_num_images", "_num_reference_images", "_num_cells", "_deltas_scaled_from", "_std")

Results = dict[str, float]


def run(recipe: str, arm: str, seed: int, generator: str, out: Path, extra: list[str]) -> Results:
    """One run's results."""
    name = f"{arm}_seed{seed}"
    changes = [*ARMS[arm], *GENERATORS[generator], *extra, f"run.name={name}", f"run.seed={seed}"]
    command = [sys.executable, "-m", "robustok_core", "run", recipe, "--out", str(out)]
    command += [word for change in changes for word in ("--set", change)]
    label = name if generator == "of the recipe" else f"{name}_{generator}"
    with (out / f"{label}.log").open("a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    results = (out / name / "results.json").read_text()
    (out / f"{label}.json").write_text(results)
    return json.loads(results)


def summary(values: list[float]) -> dict[str, object]:
    """Mean and standard error of the mean."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": round(mean(values), 4), "standard_error": round(error, 4), "values": [round(v, 4) for v in values]}


def by_arm(results: dict[str, list[Results]]) -> dict[str, object]:
    """Each result of each arm, and how far it is from the first arm's, seed by seed."""
    table: dict[str, object] = {}
    first, *others = results
    for name in results[first][0]:
        if name.count("/") == 1 and not name.endswith(COUNTS):
            values = {arm: [one[name] for one in found if name in one] for arm, found in results.items()}
            row: dict[str, object] = {arm: summary(found) for arm, found in values.items() if found}
            for arm in others:
                if values[arm]:
                    row[f"{arm} - {first}"] = summary([b - a for a, b in zip(values[first], values[arm], strict=True)])
            table[name] = row
    return table


def by_sigma(results: list[Results]) -> dict[str, object]:
    """What each post-trained decoder changed against before, and against the control (sigma = 1), seed by seed."""
    stage = "post_train/"
    measured = [name.removeprefix(f"{stage}before_") for name in results[0] if name.startswith(f"{stage}before_")]
    measured = [name for name in measured if "/" not in name and not name.endswith(COUNTS)]
    arms = sorted(
        {n.removeprefix(stage).partition("_")[0] for n in results[0] if n.startswith(f"{stage}sigma")}, reverse=True
    )
    table: dict[str, object] = {}
    for name in measured:
        before = [one[f"{stage}before_{name}"] for one in results]
        row: dict[str, object] = {"before": summary(before)}
        for arm in arms:
            after = [one[f"{stage}{arm}_{name}"] for one in results]
            row[f"{arm} - before"] = summary([b - a for a, b in zip(before, after, strict=True)])
            if arm != "sigma1" and "sigma1" in arms:
                control = [one[f"{stage}sigma1_{name}"] for one in results]
                row[f"{arm} - control"] = summary([b - a for a, b in zip(control, after, strict=True)])
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
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--set", action="append", default=[], dest="changes", help="passed on to every run")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, object] = {"recipe": options.recipe, "seeds": options.seeds, "set": options.changes}
    for generator in options.generators:
        # Seed by seed, so that what is done when it is stopped can be compared.
        plan = [(arm, seed) for seed in options.seeds for arm in options.arms]
        with ThreadPoolExecutor(options.jobs) as pool:
            found = list(
                pool.map(lambda one: run(options.recipe, *one, generator, options.out, options.changes), plan)  # noqa: B023
            )
        results = {
            arm: [one for (name, _), one in zip(plan, found, strict=True) if name == arm] for arm in options.arms
        }
        report[generator] = {"arms": by_arm(results)}
        if any(name.startswith("post_train/") for name in found[0]):
            report[generator]["post_training"] = {arm: by_sigma(results[arm]) for arm in options.arms}  # type: ignore[index]
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
