"""Checkpoints with objects of training libraries are read without these libraries, and no code runs."""

from __future__ import annotations

import collections
import os
import pathlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from robustok_core.errors import RobustokError
from robustok_toolkit.training_objects import stand_ins
from robustok_toolkit.weight_files import read_weights

WEIGHTS = {"layer.weight": torch.ones(2)}


@pytest.fixture
def classes() -> Iterator[dict[str, Any]]:
    """Classes of modules that exist only while a file is written; each warns if it is built later."""
    made, modules = {}, {}
    for path in ("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint", "omegaconf.dictconfig.DictConfig"):
        module, _, name = path.rpartition(".")
        for end in range(1, len(module.split(".")) + 1):
            part = ".".join(module.split(".")[:end])
            modules[part] = types.ModuleType(part)
        made[name] = type(name, (), {"__module__": module, "__qualname__": name})
        setattr(modules[module], name, made[name])
    sys.modules.update(modules)
    yield made
    for module in modules:
        sys.modules.pop(module, None)


def without_modules() -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] in ("pytorch_lightning", "omegaconf")]:
        del sys.modules[module]


def test_a_checkpoint_of_lightning_is_read(classes, tmp_path):
    options = classes["DictConfig"]()
    options.__dict__ |= {"content": {"lr": 1e-4}, "types": [dict, list, int], "seen": collections.defaultdict(list)}
    options.seen["a"].append(3)
    content = {
        "epoch": 3,
        "callbacks": {classes["ModelCheckpoint"]: {"best": torch.tensor(0.5), "path": pathlib.PurePosixPath("a/b")}},
        "hyper_parameters": options,
        "state_dict": WEIGHTS,
    }
    torch.save(content, tmp_path / "last.ckpt")
    without_modules()
    file = read_weights(tmp_path / "last.ckpt")
    assert file.key == "state_dict"
    assert file.weights.keys() == WEIGHTS.keys()
    assert {"callbacks", "hyper_parameters"} <= set(file.others)


class Malicious:
    """Pickles to a call of a function, with a path to make."""

    def __init__(self, function: Any, trace: Path) -> None:
        self.function, self.trace = function, trace

    def __reduce__(self):
        return self.function, (str(self.trace),)


def test_code_beside_such_objects_is_still_refused(classes, tmp_path):
    trace = tmp_path / "trace"
    content = {"callbacks": {classes["ModelCheckpoint"]: Malicious(os.mkdir, trace)}, "state_dict": WEIGHTS}
    torch.save(content, tmp_path / "last.ckpt")
    without_modules()
    with pytest.raises(RobustokError, match="may run code"):
        read_weights(tmp_path / "last.ckpt")
    assert not trace.exists()


def test_what_a_library_would_build_is_not_built(classes, tmp_path):
    trace = tmp_path / "trace"

    def build(path):
        Path(path).mkdir()

    build.__module__, build.__qualname__ = "omegaconf.dictconfig", "build"
    sys.modules["omegaconf.dictconfig"].build = build
    torch.save({"options": Malicious(build, trace), "state_dict": WEIGHTS}, tmp_path / "last.ckpt")
    assert [name for _, name in stand_ins(tmp_path / "last.ckpt")] == ["omegaconf.dictconfig.build"]
    assert read_weights(tmp_path / "last.ckpt").weights.keys() == WEIGHTS.keys()
    assert not trace.exists()
