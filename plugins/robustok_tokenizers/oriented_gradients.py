"""Histograms of oriented gradients (Dalal & Triggs 2005), a target of masked image modelling (MaskFeat, 2112.09133)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

NUM_BINS = 9


def oriented_gradients(images: Tensor, cell: int) -> Tensor:
    """Histograms (B, C, 9, h, w) of images (B, C, H, W), h = H / cell, of L2 norm 1 (0 where nothing varies).

    Each pixel adds the magnitude of its gradient (central differences, per channel) to one of the nine bins
    of unsigned directions of its cell.
    """
    padded = F.pad(images.float(), (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    bins = (torch.atan2(down, across) / math.pi * NUM_BINS).floor().long() % NUM_BINS
    magnitudes = torch.hypot(across, down)
    votes = F.one_hot(bins, NUM_BINS) * magnitudes[..., None]  # (B, C, H, W, 9)
    histograms = rearrange(votes, "b c (h p) (w q) n -> b c n h w (p q)", p=cell, q=cell).sum(-1)
    return F.normalize(histograms, dim=2)


def patch_gradients(images: Tensor, patch_size: int) -> Tensor:
    """The histograms of each patch's 2 x 2 cells: (B, P, 108) for images of 3 channels, in raster order."""
    histograms = oriented_gradients(images, patch_size // 2)
    return rearrange(histograms, "b c n (h y) (w x) -> b (h w) (c n y x)", y=2, x=2)
