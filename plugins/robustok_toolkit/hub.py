"""Whether weights of a hub can be had, found out at once."""

from __future__ import annotations

import urllib.error
import urllib.request

from robustok_core.errors import RobustokError


def require_hub(repository: str, *, where: str, hint: str) -> None:
    """Refuses a hub repository that is neither on this machine nor in reach: the hub's client tries for a minute.

    Raises:
        RobustokError: with this place and hint.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    if any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
        return
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=10).close()
    except urllib.error.HTTPError:
        return  # it answers
    except OSError as error:
        what = f"the weights of {repository} are not here and their hub is out of reach: {error}"
        raise RobustokError(what, where=where, hint=hint) from error
