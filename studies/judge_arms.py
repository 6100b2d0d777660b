"""Evaluates the decoders of a post-trained run again, against all held-out images and with metrics unbiased in n.

    python studies/judge_arms.py runs/none-seed0

Decodes the unguided samples of the stage `post_train` again, with the original tokenizer and with that of every sigma.
Prints JSON: gFD, KD, precision and recall of each decoder. docs/results.md shows them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustok_core import Recipe, load_registry
from robustok_core.kinds.generator import Generator
from robustok_core.runs.components import load_component
from robustok_core.runs.results import tables_of
from robustok_core.values.draws import Draws, derive_seed
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Latents
from robustok_core.values.result import Result
from robustok_toolkit.generating import decode_and_gather, generate, labels_of
from robustok_toolkit.image_features import ExtractedFeatures, SharedFeatures
from robustok_toolkit.latent_arrays import from_array, to_array

FEATURES = {"use": "efficientnet_lite0"}
METRICS = ("frechet", "kid", "precision_recall")
BATCH = 100


def sample(generator: Generator, seed: int, count: int) -> tuple[Latents, torch.Tensor]:
    """The latents that the comparison of `post_train` sampled without guidance, and their labels (count,)."""
    rows = torch.arange(count)
    labels = labels_of(range(generator.num_classes), rows)
    draws = Draws(seed=derive_seed(seed, "compare"), indices=rows, total=count)
    batches = generate(
        generator, labels, draws, guidance=Guidance(), sampling=type(generator).Sampling(), batch_size=BATCH
    )
    space = generator.space
    return from_array(np.concatenate([to_array(batch, space) for batch in batches]), space, "samples"), labels


@torch.inference_mode()
def evaluate(run: Path) -> Mapping[str, Mapping[str, Result]]:
    """The results of each decoder: the original one ("before") and that of each sigma."""
    registry = load_registry()
    recipe = Recipe.load(run / "recipe.toml").resolve(registry)
    fingerprints = json.loads((run / "run.json").read_text())["current"]
    artifacts = run / "artifacts"
    generator: Any = load_component(registry, artifacts / f"generator-{fingerprints['train_generator']}").eval()
    post_trained = artifacts / f"post_training-{fingerprints['post_train']}"
    decoders = {"before": artifacts / f"tokenizer-{fingerprints['train_tokenizer']}"}
    decoders |= {folder.name: folder for folder in sorted(post_trained.glob("sigma*")) if folder.is_dir()}
    count = recipe.stages[-1].spec.config.compare.num_samples
    latents, labels = sample(generator, recipe.run.seed, count)
    networks, device = SharedFeatures(torch.device("cpu")), torch.device("cpu")
    held_out = recipe.tables["data"].build().validation
    reference = ExtractedFeatures(held_out, name="held-out", networks=networks, device=device, batch_size=BATCH)
    metrics = [registry.build("sample_metric", {"use": name, "features": FEATURES}) for name in METRICS]
    results: dict[str, dict[str, Result]] = {}
    for decoder, folder in decoders.items():
        tokenizer: Any = load_component(registry, folder).eval()
        images = decode_and_gather(
            tokenizer, (latents[start : start + BATCH] for start in range(0, count, BATCH)), labels
        )
        samples = ExtractedFeatures(images, name=decoder, networks=networks, device=device, batch_size=BATCH)
        results[decoder] = {
            name: result for metric in metrics for name, result in metric.compute(samples, reference).items()
        }
    return results


def main() -> None:
    """Parses the arguments and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run whose last stage is post_train")
    by_decoder = evaluate(parser.parse_args().run)
    print(json.dumps({decoder: tables_of(results) for decoder, results in by_decoder.items()}, indent=2))


if __name__ == "__main__":
    main()
