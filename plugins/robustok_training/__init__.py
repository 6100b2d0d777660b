'''The training loop as a library: bit-exact checkpoints, data order, optimisers, logs, progress.

The plugin below has a stage that trains a model. The library provides: epochs, batch size, accumulation, a running
average and the optimiser as recipe options; data order; a log and a progress bar; checkpoints from which a killed run
resumes; several processes and mixed precision.

    import torch.nn.functional as F
    from attrs import field, frozen
    from torch import nn

    from robustok_core import Stage, hookimpl
    from robustok_core.runs.files import write_tensors
    from robustok_core.values.draws import seeded
    from robustok_training import OptimizerConfig, Task, Trainer, TrainingConfig

    @frozen(kw_only=True)
    class TrainProbeConfig(TrainingConfig):
        optimizer: OptimizerConfig = field(factory=OptimizerConfig, metadata={"doc": "the probe's optimiser"})

    class TrainProbe(Stage):
        """Trains a linear classifier of the images of [data]."""

        Config = TrainProbeConfig
        uses = ("data",)
        makes = ("probe",)

        def __init__(self, config):
            self.config = config

        def run(self, context):
            data = context.dataset()
            with seeded(context.seed, "init"):
                probe = nn.Sequential(nn.Flatten(), nn.Linear(3 * data.image_size**2, data.num_classes))
            task = Task.of_model(probe, cross_entropy, self.config.optimizer)
            trainer = Trainer(context, task, data.train, self.config)
            trainer.run()
            with context.making("probe") as folder:
                if folder is not None:
                    write_tensors(folder / "probe.safetensors", trainer.kept().state_dict())
            return {"steps": trainer.total}

    def cross_entropy(probe, batch, draws):
        return F.cross_entropy(probe(batch.images), batch.labels)

    @hookimpl
    def robustok_register(register):
        register("stage", "train_probe", TrainProbe)

To train several modules against each other, make a `Task` of several `TrainedModule`s; their docstring says how they
are called and how one passes a value to the next. The names below are the public API. Each is loaded on first use, so
that importing one module of the package does not load the others.
'''

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_MODULE_OF = {
    "OptimizerConfig": "optimizer",
    "Task": "task",
    "TrainedModule": "task",
    "Trainer": "trainer",
    "TrainingConfig": "config",
}

__all__ = ["OptimizerConfig", "Task", "TrainedModule", "Trainer", "TrainingConfig"]

if TYPE_CHECKING:
    from robustok_training.config import TrainingConfig
    from robustok_training.optimizer import OptimizerConfig
    from robustok_training.task import Task, TrainedModule
    from robustok_training.trainer import Trainer


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
