"""Main training with and without perturbation: arms x seeds, mean and standard error.

    python studies/perturbation.py --out runs/study --jobs 2

Each run is a process of its own with one thread; runs that are done are not repeated. Prints one JSON object,
whose "table" is what docs/results.md shows.
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

ARMS = {"none": ["--set", "perturbation.use=none"], "top_delta": []}
COUNTS = ("_num_images", "_num_cells", "_deltas_scaled_from")


def run(recipe: str, arm: str, seed: int, out: Path, extra: list[str]) -> dict[str, float]:
    """One run's results."""
    name = f"{arm}_seed{seed}"
    command = [sys.executable, "-m", "robustok_core", "run", recipe, "--out", str(out), *ARMS[arm], *extra]
    command += ["--set", f"run.name={name}", "--set", f"run.seed={seed}"]
    with (out / f"{name}.log").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return json.loads((out / name / "results.json").read_text())


def summary(values: list[float]) -> dict[str, object]:
    """Mean and standard error of the mean."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": round(mean(values), 4), "standard_error": round(error, 4), "values": [round(v, 4) for v in values]}


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="main_train")
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--set", action="append", default=[], dest="changes", help="passed on to every run")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    extra = [word for change in arguments.changes for word in ("--set", change)]
    # Seed by seed, so that what is done when it is stopped can be compared.
    plan = [(arm, seed) for seed in arguments.seeds for arm in ARMS]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        found = list(pool.map(lambda one: run(arguments.recipe, *one, arguments.out, extra), plan))
    results = dict(zip(plan, found, strict=True))
    table: dict[str, dict[str, object]] = {}
    for name in next(iter(results.values())):
        if name.startswith("evaluate") and name.count("/") == 1 and not name.endswith(COUNTS):
            by_arm = {arm: [results[arm, seed][name] for seed in arguments.seeds] for arm in ARMS}
            differences = [b - a for a, b in zip(by_arm["none"], by_arm["top_delta"], strict=True)]
            table[name.partition("/")[2]] = {
                **{arm: summary(values) for arm, values in by_arm.items()},
                "difference": summary(differences),
            }
    print(json.dumps({"recipe": arguments.recipe, "seeds": arguments.seeds, "table": table}, indent=2))


if __name__ == "__main__":
    main()
