"""One of two processes that share trainings: `sharded_two_processes.py RANK FOLDER`, with a launcher's variables set.

FOLDER holds NAME.json for each project: its recipe, whether its weights are sharded, and the step after which it is
stopped, if any; the projects run one after the other into FOLDER.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

import torch

from processes import AtStep
from project import Project, registry_with
from robustok_core.errors import Interrupted


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.destroy_process_group = lambda group=None: None  # the processes stay connected for the next run
    for file in sorted(folder.glob("*.json")):
        asked = json.loads(file.read_text())
        os.environ |= {"ACCELERATE_USE_FSDP": str(asked["sharded"]), "FSDP_VERSION": "2"}
        project = Project.of(asked["recipe"], folder / asked["out"])
        stopping = AtStep(asked["stop"], ask_to_stop)
        with contextlib.suppress(Interrupted):
            project.run(registry=registry_with(stopping))
        file.with_suffix(f".{os.environ['RANK']}.txt").write_text(project.printed)


def ask_to_stop() -> None:
    os.kill(os.getpid(), 15)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
