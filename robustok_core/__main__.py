"""What starts the command `robustok`; `python -m robustok_core` and `accelerate launch -m robustok_core` are the same.

An interrupt exits with 130 at any time: also while modules are imported, before the command answers signals itself,
and while the interpreter shuts down.
"""

from __future__ import annotations

import signal
import sys


def start() -> None:
    """Runs the command and exits."""
    try:
        from robustok_core.cli import main

        main()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left takes no time, and a traceback would say nothing


if __name__ == "__main__":
    start()
