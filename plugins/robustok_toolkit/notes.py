"""Notes for the user about data, such as what was left out: logged by one process of a run."""

from __future__ import annotations

import logging

from robustok_training.distributed import rank


def note(log: logging.Logger, message: str, *values: object) -> None:
    """Logs a warning, unless another process of the run logs the same."""
    if rank() == 0:
        log.warning(message, *values)
