"""Batches move as one."""

from __future__ import annotations

import torch

from robustok_core import Latents
from robustok_core.values.batches import Batch, ImageBatch, LatentBatch

ROWS = {"labels": torch.tensor([3, 1]), "indices": torch.tensor([7, 8])}


def test_all_parts_of_a_batch_move_to_a_device():
    images = ImageBatch(**ROWS, images=torch.zeros(2, 3, 4, 4)).to("meta")
    latents = LatentBatch(**ROWS, latents=Latents(vectors=torch.zeros(2, 4, 2))).to("meta")
    moved = [images.images, images.labels, images.indices, latents.latents.vectors, latents.labels]
    assert {tensor.device.type for tensor in moved} == {"meta"}
    assert (type(images), type(latents)) == (ImageBatch, LatentBatch)


def test_a_batch_is_as_long_as_its_rows():
    assert len(Batch(**ROWS)) == len(ImageBatch(**ROWS, images=torch.zeros(2, 3, 4, 4))) == 2
