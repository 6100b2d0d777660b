"""Which latents a tokenizer makes, as a hash: what a generator trained on them depends on."""

from __future__ import annotations

import hashlib

import torch

from robustok_core.kinds.tokenizer import Tokenizer


def latent_fingerprint(tokenizer: Tokenizer) -> str:
    """16 hexadecimal digits over all weights and buffers that make latents (encoder, projection, codebook).

    A post-trained tokenizer has the fingerprint of the one it came from: its codes mean the same.
    """
    others = [tokenizer.decoder, *(getattr(tokenizer, name) for name in tokenizer.training_only)]
    left_out = {id(tensor) for module in others for tensor in [*module.parameters(), *module.buffers()]}
    digest = hashlib.sha256()
    for name, tensor in sorted(tokenizer.state_dict(keep_vars=True).items()):
        if id(tensor) not in left_out:
            held = tensor.detach().cpu().contiguous()
            if held.is_floating_point():
                held = held + 0.0  # averaging weights makes 0.0 of -0.0, which is the same number
            digest.update(f"{name} {held.dtype} {tuple(held.shape)}".encode())
            digest.update(held.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
