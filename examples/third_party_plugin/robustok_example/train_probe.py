"""A stage that trains a linear classifier of latents and measures its accuracy."""

import torch
import torch.nn.functional as F
from attrs import field, frozen
from robustok_core import Result, Stage
from robustok_core.runs.files import write_tensors
from robustok_core.values.draws import seeded
from robustok_training import OptimizerConfig, Task, Trainer, TrainingConfig
from torch import nn


@frozen(kw_only=True)
class TrainProbeConfig(TrainingConfig):
    epochs: float = field(default=10.0, metadata={"doc": "passes over the training images"})
    batch_size: int = field(default=16, metadata={"doc": "images per step, over all processes"})
    optimizer: OptimizerConfig = field(factory=OptimizerConfig, metadata={"doc": "the classifier's optimiser"})


class TrainProbe(Stage):
    """Trains a linear probe on the latents of the artifact "tokenizer" and saves it as the artifact "probe"."""

    Config = TrainProbeConfig
    uses, needs, makes = ("data",), ("tokenizer",), ("probe",)

    def __init__(self, config):
        self.config = config

    def run(self, context):
        data, tokenizer = context.dataset(), context.load("tokenizer").requires_grad_(False)
        with seeded(context.seed, "init"):
            probe = nn.Linear(tokenizer.space.num_tokens * tokenizer.space.width, data.num_classes)

        def logits(probe, images):
            return probe(tokenizer.vectors_of(tokenizer.encode(images)).flatten(1))

        def loss(probe, batch, draws):
            return F.cross_entropy(logits(probe, batch.images), batch.labels)

        trainer = Trainer(context, Task.of_model(probe, loss, self.config.optimizer), data.train, self.config)
        trainer.run()
        with context.making("probe") as folder:
            if folder is not None:
                write_tensors(folder / "probe.safetensors", trainer.kept().state_dict())
        batch = data.validation.load(range(len(data.validation))).to(context.device)
        with torch.no_grad():
            correct = logits(trainer.kept(), batch.images).argmax(1) == batch.labels
        return {"accuracy": Result(correct.double().mean(), higher_is_better=True, num_images=len(correct))}
