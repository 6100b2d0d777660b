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
    except ImportError as error:  # of what the command line itself needs
        _say_what_is_missing(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left takes no time, and a traceback would say nothing


def _say_what_is_missing(error: ImportError) -> None:
    from robustok_core.runs.dependencies import failed_import

    if (failure := failed_import(error)) is None:
        raise error
    sys.stderr.write(f"error: {failure.what}\n  hint: {failure.hint}\n")


if __name__ == "__main__":
    start()
