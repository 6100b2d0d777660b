"""Every kind of file that robustok reads from a project or from elsewhere, with the functions that read it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from safetensors.torch import load_file, save_file

from project import Project
from robustok_commands.decode import _read as read_latents
from robustok_core import GeneratorPromise, Registry, TokenizerPromise, load_registry
from robustok_core.runs.components import load_component
from robustok_core.runs.files import read_json, write_json
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.runs.folder import find_artifact
from robustok_core.runs.loading import read_published
from robustok_core.runs.manifest import MANIFEST
from robustok_core.runs.results import read_results
from robustok_core.runs.step_log import drop_lines
from robustok_stages.tokenizer.opponents import saved_opponents
from robustok_toolkit.decoder_files import Decoders
from robustok_toolkit.image_files import NpzImages
from robustok_toolkit.latent_files import LatentRows, LatentsPromise
from robustok_toolkit.pair_files import PairRows, PairsPromise, sigmas_of
from robustok_toolkit.sample_files import SamplesPromise
from robustok_training.checkpoint import load_checkpoint

PARITY = Path(__file__).parents[1] / "parity"
#: Importers by the name of a published file, with the options that do not follow from it.
IMPORTERS: dict[str, dict[str, Any]] = {
    "robustok_tokenizer_a": {"use": "robustok", "num_heads": 4},
    "llamagen_vq_a": {"use": "llamagen_vq", "image_size": 16},
    "taming_vq_a": {"use": "taming_vq", "image_size": 16, "norm_groups": 4},
    "vqgan_lc_a": {"use": "vqgan_lc", "image_size": 16, "norm_groups": 4},
    "ibq_a": {"use": "ibq", "image_size": 16, "norm_groups": 4},
    "vavae_a": {"use": "ldm_vae", "image_size": 16, "norm_groups": 4},
    "maskgit_vq_a": {"use": "maskgit_vq", "image_size": 16},
    "open_magvit2_a": {"use": "open_magvit2", "image_size": 16, "norm_groups": 4},
    "maetok_a": {"use": "maetok", "num_heads": 4},
    "softvq_a": {"use": "softvq", "num_heads": 4},
    "titok_a": {"use": "titok", "encoder_num_heads": 4, "decoder_num_heads": 4},
    "gigatok_a": {
        "use": "gigatok",
        "encoder_num_heads": 2,
        "decoder_num_heads": 3,
        "norm_groups": 4,
        "semantic_depth": 1,
    },
    "ldetok_a": {"use": "ldetok", "encoder_num_heads": 3, "decoder_num_heads": 2},
    "rar_a": {"use": "rar"},
    "llamagen_gpt_a": {"use": "llamagen_gpt", "num_heads": 4, "num_tokens": 16},
    "sit1d_a": {"use": "sit", "num_heads": 4},
    "lightningdit_a": {"use": "lightningdit", "num_heads": 4},
    "dit_a": {"use": "dit", "num_heads": 4},
}


@frozen
class Kind:
    """A file and what reads it, both in a folder of their own."""

    file: Path
    read: Callable[[], Any]

    @property
    def recorded(self) -> Path | None:
        """The folder of an artifact or checkpoint, whose manifest has the hash of this file."""
        return next((folder for folder in self.file.parents[:2] if (folder / MANIFEST).is_file()), None)


def kinds_of_project(project: Project, post_trained: Project, folder: Path) -> dict[str, Kind]:
    """The kinds of files in a project; copies them to `folder`.

    Args:
        project: ran from images to samples.
        post_trained: ran `make_pairs` and `post_train` with that one's artifacts; may be the same.
        folder: to be made.
    """
    shutil.copytree(project.folder, run := folder / "run")
    shutil.copytree(post_trained.folder, later := folder / "later")
    registry, dataset = load_registry(), project.dataset()
    artifacts = {name: find_artifact(run, name) for name in ("tokenizer", "generator", "latents", "samples")}
    artifacts |= {name: find_artifact(later, name) for name in ("pairs", "decoders")}
    tokenizer = load_component(registry, artifacts["tokenizer"])
    sigma, fingerprint = sigmas_of(artifacts["pairs"])[0], latent_fingerprint(tokenizer)
    (checkpoint,) = (run / "checkpoints").glob("train_generator-*")
    step = max(checkpoint.iterdir())
    codes = np.load(artifacts["samples"] / "codes.npy")
    np.savez(encoded := folder / "encoded.npz", codes=codes, names=[f"{row}.png" for row in range(len(codes))])
    write_json(evaluated := folder / "evaluated.json", {"samples": "a", "results": read_json(run / "results.json")})
    save_file({"module/gan/weight": torch.ones(2)}, folder / "opponents.safetensors")

    def component(name: str, promise: Any) -> Callable[[], Any]:
        return lambda: (
            load_component(registry, artifacts[name]),
            promise.of_artifact(artifacts[name], registry),
            find_artifact(artifacts[name], name),
        )

    def latents() -> Any:
        LatentsPromise.of_artifact(artifacts["latents"], registry)
        rows = LatentRows(artifacts["latents"], "train")
        assert rows.fingerprint
        return rows.load(range(len(rows)))

    def pairs() -> Any:
        PairsPromise.of_artifact(artifacts["pairs"], registry)
        rows = PairRows(artifacts["pairs"], sigma, dataset.train, tokenizer=fingerprint)
        return rows.load(range(len(rows)))

    def samples() -> Any:
        images = NpzImages(artifacts["samples"] / "samples.npz")
        return images.load(range(len(images)))

    part = next(iter(sorted((artifacts["latents"] / "parts").glob("train-*"))))
    tokenizer_read, generator_read = component("tokenizer", TokenizerPromise), component("generator", GeneratorPromise)
    return {
        "tokenizer record": Kind(artifacts["tokenizer"] / "component.json", tokenizer_read),
        "generator record": Kind(artifacts["generator"] / "component.json", generator_read),
        "weights": Kind(artifacts["tokenizer"] / "model.safetensors", tokenizer_read),
        "opponents": Kind(folder / "opponents.safetensors", lambda: saved_opponents(folder)),
        "latents index": Kind(artifacts["latents"] / "latents.json", latents),
        "latents labels": Kind(artifacts["latents"] / "train-labels.npy", latents),
        "latents shard": Kind(part, latents),
        "pairs index": Kind(artifacts["pairs"] / "latents.json", pairs),
        "pairs rows": Kind(artifacts["pairs"] / "rows.npy", pairs),
        "samples index": Kind(
            artifacts["samples"] / "samples.json", lambda: SamplesPromise.of_artifact(artifacts["samples"], registry)
        ),
        "samples": Kind(artifacts["samples"] / "samples.npz", samples),
        "codes": Kind(
            artifacts["samples"] / "codes.npy", lambda: read_latents(artifacts["samples"] / "codes.npy", tokenizer)
        ),
        "encoded": Kind(encoded, lambda: read_latents(encoded, tokenizer)),
        "decoders index": Kind(artifacts["decoders"] / "decoders.json", lambda: Decoders.read(artifacts["decoders"])),
        "checkpoint values": Kind(step / "state.json", lambda: load_checkpoint(checkpoint)),
        "checkpoint tensors": Kind(step / "state.safetensors", lambda: load_checkpoint(checkpoint)),
        "results": Kind(run / "results.json", lambda: read_results(run)),
        "evaluated": Kind(evaluated, lambda: read_results(evaluated)),
        "step log": Kind(run / "metrics.jsonl", lambda: drop_lines(run / "metrics.jsonl", "", 0)),
    }


def published_weights(name: str) -> dict[str, torch.Tensor]:
    """The weights of a tiny published file."""
    return {key[2:]: value for key, value in load_file(PARITY / f"{name}.safetensors").items() if key.startswith("w.")}


def kinds_of_published(folder: Path) -> dict[str, Kind]:
    """Tiny published files of each format, and one of them in each kind of file; written to `folder`."""
    registry = load_registry()
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {}
    for name in IMPORTERS:
        save_file(published_weights(name), file := folder / f"{name}.safetensors")
        kinds[name] = _imported(file, name, registry)
    weights = published_weights("rar_a")
    torch.save({"model": weights, "step": 3}, folder / "zip.pt")
    torch.save({"ema": weights}, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    index = write_sharded(folder / "sharded", weights)
    shard = index.with_name("part-1.safetensors")
    kinds |= {file: _imported(folder / file, "rar_a", registry) for file in ("zip.pt", "legacy.pt")}
    kinds["shard index"] = _imported(index, "rar_a", registry)
    kinds["shard"] = Kind(shard, kinds["shard index"].read)
    return kinds


def write_sharded(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    """Writes weights as two files with an index; returns the index."""
    folder.mkdir(parents=True)
    halves = dict(list(weights.items())[::2]), dict(list(weights.items())[1::2])
    for number, half in enumerate(halves):
        save_file(half, folder / f"part-{number}.safetensors")
    names = {name: f"part-{number}.safetensors" for number, half in enumerate(halves) for name in half}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}))
    return index


def _imported(file: Path, name: str, registry: Registry) -> Kind:
    spec = registry.spec("importer", IMPORTERS[name])
    return Kind(file, lambda: read_published(spec, file, registry))
