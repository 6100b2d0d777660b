"""Damages every kind of file again and again: what reads it must get its content or one message.

python tests/soak/files.py --tries 200
"""

from __future__ import annotations

import argparse
import collections
import shutil
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from mutations import damaged_bytes, damaged_json, damaged_weights
from project import POST_TRAINING, TO_SAMPLES, Project
from readers import IMPORTERS, Kind, kinds_of_project, kinds_of_published, published_weights
from robustok_core import RobustokError


def damage(name: str, kind: Kind, content: bytes, random: Random) -> None:
    """Damages a file of this kind."""
    if name in IMPORTERS and random.random() < 0.7:
        save_file(damaged_weights(published_weights(name), random), kind.file)
    elif kind.file.suffix == ".json" and random.random() < 0.7:
        kind.file.write_bytes(damaged_json(content, random))
    else:
        kind.file.write_bytes(damaged_bytes(content, random))


def round_of(name: str, kind: Kind, tries: int, seed: int) -> collections.Counter[str]:
    """Damages and reads a file; counts what came of it, and prints the first traceback of each kind."""
    content, found = kind.file.read_bytes(), collections.Counter[str]()
    for number in range(tries):
        damage(name, kind, content, Random(f"{name} {seed} {number}"))
        try:
            kind.read()
            found["read"] += 1
        except RobustokError:
            found["refused"] += 1
        except Exception as error:  # what this program looks for
            found[type(error).__name__] += 1
            if found[type(error).__name__] == 1:
                print(f"{name}, seed {seed}, number {number}:")
                traceback.print_exc(file=sys.stdout)
    kind.file.write_bytes(content)
    return found


def main() -> None:
    """All kinds of files, each as many times; exits with 1 if anything but a message was raised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=1000, help="for each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    out = Path(tempfile.mkdtemp(prefix="robustok-files-"))
    project = Project(out / "trained", (*TO_SAMPLES, *POST_TRAINING)).run()
    kinds = kinds_of_project(project, project, out / "project") | kinds_of_published(out / "published")
    total = collections.Counter[str]()
    for name, kind in kinds.items():
        found = round_of(name, kind, options.tries, options.seed)
        total += found
        print(f"{name}: {dict(found)}", flush=True)
    print(f"{sum(total.values())} damaged files of {len(kinds)} kinds: {dict(total)}")
    shutil.rmtree(out)
    if total.keys() - {"read", "refused"}:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
