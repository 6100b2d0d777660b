"""Draws docs/pictures/trained.png: `python docs/pictures/trained.py runs/main_train docs/pictures/trained.png`.

The one in the repository is of the run of docs/results.md, "Batches of 32", seed 0: main_train and post_train, with 6
and 3 epochs in place of 5 and 2.5.
"""

import sys
from pathlib import Path

import numpy as np
import torch

import robustok
from robustok_core.values.images import to_uint8
from robustok_toolkit.pictures import save_rows

run, out = map(Path, sys.argv[1:])
generator = robustok.load_generator(run)
tokenizer = generator.tokenizer
held_out = robustok.load_registry().build("dataset", {"use": "fashion_mnist"}).validation
first_of_each = [held_out.labels.tolist().index(label) for label in range(10)]
images = held_out.load(first_of_each).images

latents = tokenizer.encode_images(images)
wrong = tokenizer.perturbed(latents, "top_delta", alpha=0.5, delta=12)
rows = {
    "held-out images": list(to_uint8(images).permute(0, 2, 3, 1).numpy()),
    "reconstructed": tokenizer.decode_to_images(latents),
    "reconstructed, half of the tokens replaced by one of the 12 nearest codewords": tokenizer.decode_to_images(wrong),
    "generated, guidance 1.5": generator.sample_images(n=10, guidance=1.5),
}
stacks = {name: torch.from_numpy(np.stack([np.asarray(p) for p in pictures])) for name, pictures in rows.items()}
save_rows(out, {name: stack.permute(0, 3, 1, 2) for name, stack in stacks.items()})
