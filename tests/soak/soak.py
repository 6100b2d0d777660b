"""The long versions of the tests of kills and of random damage: `tox -e soak`, or `python tests/soak/soak.py`.

Prints a table of what was tried and lost, and exits with 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "helpers"), str(TESTS / "soak")]

from kills import kill_runs  # noqa: E402 (found by the line above)

Rows = list[tuple[str, int, int]]


def damage_inputs(times: int, seed: int) -> tuple[Rows, bool]:
    """Runs the tests marked `soak`; returns each fault with what was tried and lost, and whether all passed.

    Args:
        times: as many times as many inputs as in CI.
        seed: of the inputs.
    """
    os.environ["ROBUSTOK_SOAK_TIMES"] = str(times)
    options = ["-q", "-m", "soak", "-p", "no:cacheprovider", "--durations=5", f"--hypothesis-seed={seed}"]
    passed = pytest.main([*options, str(TESTS / "robustness")]) == pytest.ExitCode.OK
    from tried import LOST, TRIED  # the tests' own, which have counted

    return [(fault, len(inputs), len(LOST[fault])) for fault, inputs in TRIED.items()], passed


def main() -> None:
    """Kills, then damage, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="at least as many; 0 for none")
    parser.add_argument("--times", type=int, default=30, help="times as many damaged inputs as in CI; 0 for none")
    parser.add_argument("--seed", type=int, default=0, help="of both")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "robustok-soak")
    options = parser.parse_args()
    began = time.monotonic()
    rows = kill_runs(options.kills, options.seed, options.out) if options.kills else []
    damaged, passed = damage_inputs(options.times, options.seed) if options.times else ([], True)
    rows += damaged
    print("\n| fault | tried | lost |\n|---|---|---|")
    for fault, tried, lost in rows:
        print(f"| {fault} | {tried:,} | {lost:,} |")
    print(f"\nseed {options.seed}, {(time.monotonic() - began) / 60:.0f} minutes", flush=True)
    if not passed or any(lost for _, _, lost in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
