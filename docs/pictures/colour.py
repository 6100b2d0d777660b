"""Draws docs/pictures/colour.png: `python docs/pictures/colour.py runs/colour_train docs/pictures/colour.png`.

The run is one of colour_post_train; for the one in the repository see docs/results.md, "In colour". The columns are
the first ten held-out pictures, whose classes take turns. Nothing was selected by how it looks.
"""

import sys
from pathlib import Path

import torch

import robustok
from robustok_core import Draws, Guidance, Keep
from robustok_core.runs.components import load_component
from robustok_core.runs.files import read_json
from robustok_core.runs.folder import find_artifact
from robustok_core.values.images import to_uint8
from robustok_toolkit.decoder_files import Decoders
from robustok_toolkit.generating import decode_to_uint8
from robustok_toolkit.pictures import save_rows

COUNT = 10

run, out = map(Path, sys.argv[1:])
registry = robustok.load_registry()
generator = robustok.load_generator(run, device="cpu").generator
current = read_json(run / "run.json")["current"]
before = load_component(registry, run / "artifacts" / f"tokenizer-{current['train_tokenizer']}")
decoders = Decoders.read(find_artifact(run, "decoders")).folders
sigma = min(decoders)
control, after = (load_component(registry, decoders[trained_on]) for trained_on in (1.0, sigma))

held_out = registry.build("dataset", {"use": "fluent_emoji"}).validation
batch = held_out.load(range(COUNT))  # classes take turns
with torch.no_grad():
    real = before.encode(batch.images).without_features()
    keep = Keep(latents=real, sigma=sigma)
    redrawn = generator.sample(batch.labels, Draws.for_rows(0, COUNT), guidance=Guidance(), keep=keep)
    rows = {
        "held-out pictures": to_uint8(batch.images),
        "reconstructed": decode_to_uint8(before, real),
        f"{1 - sigma:.0%} of the tokens redrawn by the generator": decode_to_uint8(before, redrawn),
        "the same tokens, decoder post-trained on clean tokens (control)": decode_to_uint8(control, redrawn),
        f"the same tokens, decoder post-trained (sigma = {sigma:g})": decode_to_uint8(after, redrawn),
    }
save_rows(out, rows)
