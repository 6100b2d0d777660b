"""`python -m robustok_core` and `accelerate launch -m robustok_core` are the command `robustok`."""

from robustok_core.cli import main

main()
