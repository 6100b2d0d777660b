"""What every process of a run has to say is printed by one of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from datetime import timedelta

#: Seconds that the other processes wait for the main process to say the same.
_PATIENCE = 3.0


def process_number() -> int:
    """The number of this process among those that a launcher started, from 0."""
    return _number_in("RANK", 0)


def _number_in(variable: str, default: int) -> int:
    """The number that a launcher has put into a variable; what is no number says nothing."""
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() and len(text) < 10 else default


def num_processes() -> int:
    """How many processes a launcher started."""
    return _number_in("WORLD_SIZE", 1)


def is_another_process() -> bool:
    """Whether a main process beside this one prints the same on standard output."""
    return process_number() > 0 and num_processes() > 1


def is_ours_to_say(message: str) -> bool:
    """Whether this process has to print a message: it is the main process, or that one does not say the same."""
    if num_processes() == 1:
        return True
    key = "robustok/said/" + hashlib.sha256(message.encode(errors="replace")).hexdigest()
    try:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=_PATIENCE),
            wait_for_workers=False,
        )
        if process_number() == 0:
            store.set(key, "said")
            return True
        until = time.monotonic() + _PATIENCE
        with contextlib.suppress(KeyboardInterrupt):  # the launcher ends the others as soon as one has failed
            while time.monotonic() < until and not store.check([key]):
                time.sleep(0.05)
        return not store.check([key])
    except Exception:  # no launcher, or it has gone already, or there is no torch: the message has to be said
        return True
