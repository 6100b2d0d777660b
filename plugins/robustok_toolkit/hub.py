"""A quick check that weights can be loaded from the Hugging Face hub."""

from __future__ import annotations

import urllib.error
import urllib.request

from robustok_core.errors import RobustokError


def require_hub(repository: str, *, where: str, hint: str) -> None:
    """Fails fast if a hub repository is neither cached nor reachable; the hub's client would retry for a minute.

    Raises:
        RobustokError: with this location and hint.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    if any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
        return
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=10).close()
    except urllib.error.HTTPError:
        return  # the hub answers
    except OSError as error:
        message = f"the weights of {repository} are not cached, and the hub cannot be reached: {error}"
        raise RobustokError(message, where=where, hint=hint) from error
