"""`python -m robustok_study.job ARGUMENTS`: the command `robustok ARGUMENTS` as a job of a study.

It stops as on Ctrl-C, with its work saved, when the study that started it is gone, however that ended.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def _stop_with_the_study() -> None:
    """Waits for the end of standard input, whose other end the study holds."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Runs the command."""
    from robustok_core.cli import main as robustok

    threading.Thread(target=_stop_with_the_study, daemon=True).start()
    robustok(sys.argv[1:])


if __name__ == "__main__":
    main()
