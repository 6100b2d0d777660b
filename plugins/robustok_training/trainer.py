"""The training loop of all models in robustok.

A step is a function of its number: data order, augmentation, perturbation and dropout are derived from
(seed, stage, step). So a checkpoint needs no random state, a killed run resumes bit for bit, and several processes
train as one would.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import torch
from attrs import field, frozen
from torch import Tensor, nn

from robustok_core.errors import Interrupted, RobustokError, RunError
from robustok_core.kinds.dataset import Rows
from robustok_core.kinds.stage import StageContext
from robustok_core.runs.interrupt import StopRequest
from robustok_core.runs.main_process import from_main
from robustok_core.values.batches import Batch
from robustok_core.values.draws import Draws, derive_seed
from robustok_core.values.finite import all_finite
from robustok_core.values.full_precision import tf32
from robustok_core.values.speed import is_on
from robustok_training.alarms import Alarms
from robustok_training.batches import measured_steps, rows_of_step, steps_per_epoch, training_batches
from robustok_training.channels_last import keep_channels_last
from robustok_training.checkpoint import (
    checkpoints,
    of_other_processes,
    set_damaged_aside,
)
from robustok_training.config import TrainingConfig
from robustok_training.device_copies import DeviceCopies
from robustok_training.distributed import barrier, rank, world_size
from robustok_training.finite import NotFiniteError, check_modules, check_values
from robustok_training.interrupt import StopAgreement, stop_requests
from robustok_training.interval_means import IntervalMeans, means_of
from robustok_training.kept_module import KeptModule
from robustok_training.not_finite import FirstNotFinite, NotFinite, forget, recorded
from robustok_training.phase_clock import PhaseClock
from robustok_training.prepared_module import PreparedModule
from robustok_training.progress import StepProgress
from robustok_training.repeated_blocks import RepeatedBlocks
from robustok_training.replay import Turn, finding
from robustok_training.task import Task
from robustok_training.training_state import TrainingState


@frozen(eq=False)
class _MicroBatch:
    """A micro-batch of a step; `left` holds what each trained module left for those after it, by name."""

    batch: Batch
    draws: Draws
    left: dict[str, Any] = field(factory=dict, init=False)


class Trainer:
    """Runs a task over a split's rows from the newest checkpoint to the end.

    Args:
        context: the stage's context. task: what is trained. rows: the training data. config: options of the training.
        measure_every: epochs between calls of `task.measure`; 0 for no calls.
    """

    def __init__(
        self, context: StageContext, task: Task, rows: Rows, config: TrainingConfig, *, measure_every: float = 0.0
    ) -> None:
        gc.collect()  # the modules and optimisers of the training before, which refer to each other
        self.context, self.task, self.rows, self.config = context, task, rows, config
        self.accelerator = context.accelerator
        self.epoch_steps = steps_per_epoch(rows, config.batch_size)
        self.total = config.steps(self.epoch_steps)
        self.measure_steps = measured_steps(measure_every, self.epoch_steps)
        for module in task.modules.values():
            module.to(self.accelerator.device)
        self._kept = KeptModule(task.averaged, config.ema_decay)
        prepared = [
            PreparedModule(trained, self.accelerator, self._say, sharded=self._kept.is_divided(trained.module))
            for trained in task.trained_modules
        ]
        self._prepared = {module.name: module for module in prepared}
        speed = config.speed(context.speed)
        self._speed = speed.with_divided_weights() if self._kept.sharded else speed
        for module in task.modules.values() if is_on(self._speed.channels_last, context.device) else ():
            keep_channels_last(module)
        self._kept.prepared()
        self._blocks = self._make_blocks()
        self._copies = DeviceCopies(self.accelerator.device)
        self._clock = PhaseClock()
        self._means = IntervalMeans(self.accelerator.device)
        self._state = self._state_to_save()
        self._first_not_finite = FirstNotFinite(self.accelerator.device, config.accumulation)
        self._alarms = Alarms(task.alarms())
        self._stop = StopAgreement(self.accelerator.device)
        self._done = 0  # completed steps
        self._examines = False

    def _make_blocks(self) -> RepeatedBlocks:
        trained = [trained_module.module for trained_module in self.task.trained_modules]
        return RepeatedBlocks(
            list(self.task.modules.values()),
            trained,
            compiles=is_on(self._speed.compile, self.context.device),
            recomputes=self._speed.activation_checkpointing,
            say=self._say,
        )

    def _state_to_save(self) -> TrainingState:
        average = self._kept.average
        return TrainingState(
            folder=self.context.checkpoints,
            modules=self.task.modules if average is None else {**self.task.modules, "average": average},
            prepared=self._prepared,
            means=self._means,
            scaler=self.accelerator.scaler,
        )

    def _say(self, line: str) -> None:
        self.context.say(f"{self.context.stage}: {line}")

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds since the start by phase: "data", "forward", "backward", "optimizer", "other"."""
        return self._clock.seconds

    def kept(self) -> nn.Module:
        """The module to keep: the running average of the weights if there is one, otherwise the last weights.

        Of sharded weights, a whole copy, as it was at the end of `run`.
        """
        return self._kept.final()

    def optimizer_state(self, name: str) -> dict[str, Tensor]:
        """The optimiser state of the trained module `name`, by parameter name."""
        return self._prepared[name].optimizer_state()

    def adopt_optimizer_state(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Starts a trained module with its optimiser state from another training, see `optimizer_state`."""
        self._prepared[name].load_optimizer_state(tensors)

    def run(self) -> None:
        """Trains to the end.

        Raises:
            RunError: if a loss or a weight is not finite; that step is not saved.
            Interrupted: if the user asked to stop; a checkpoint is saved first.
        """
        try:
            self._run()
        finally:
            for prepared in self._prepared.values():
                prepared.release()

    def _run(self) -> None:
        record = from_main(lambda: recorded(self.context.checkpoints)) if self.context.replay else None
        if record is not None and self._kept.sharded:
            hint = "start it with multi-GPU instead (recipes/cluster/ddp_8.yaml); it reads the same checkpoint"
            raise RobustokError("--replay does not look into sharded weights", hint=hint)
        if record is not None:
            self._replay(record)
        start = self._resume()
        if start:
            self.context.say(f"{self.context.stage} ({self.context.fingerprint}): step {start} of {self.total}")
        try:
            self._train(start)
            self._check_weights(self.total)
            self._kept.finish()
        except NotFiniteError as error:
            raise self._recorded(error) from error
        if self.accelerator.is_main_process:
            forget(self.context.checkpoints, self.total)

    def _train(self, start: int) -> None:
        progress = StepProgress(self.context.console, self.context.stage, self.total, start)
        with stop_requests() as stop, progress:
            for step, batches in self._batches(start):
                self._step(step, batches)
                done = step + 1
                if done % self.config.log_every == 0 or done == self.total:
                    progress.update(done, self._log(done))
                else:
                    progress.update(done)
                self._maybe_measure(done)
                self._maybe_checkpoint(done, stop)

    def _recorded(self, error: NotFiniteError) -> RunError:
        """Keeps what a replay needs; returns the error that says so."""
        first = self._first_not_finite.found()
        step, process, micro_batch = (self._done - 1, None, None) if first is None else first
        seed, config = self.context.seed, self.config
        by_process = rows_of_step(
            len(self.rows),
            seed=derive_seed(seed, "data"),
            global_batch=config.batch_size,
            accumulation=config.accumulation,
            world=world_size(),
            step=step,
        )
        of_step = [index for of_process in by_process for rows in of_process for index in rows]
        record = NotFinite(
            what=error.what,
            step=step + 1,
            process=process,
            micro_batch=micro_batch,
            images=of_step if process is None or micro_batch is None else by_process[process][micro_batch],
            stage_seed=seed,
            step_seed=derive_seed(seed, "step", step),
            torch_seed=derive_seed(seed, "torch", step, process or 0),
        )
        if self.accelerator.is_main_process:
            record.write(self.context.checkpoints)
        barrier()
        where = "" if first is None else f", first in micro-batch {micro_batch} of process {process} of step {step + 1}"
        hint = f"the same command with --replay finds the image and the module; {error.hint}"
        return RunError(f"{error.what}{where}", where=error.where, hint=hint)

    def _replay(self, record: NotFinite) -> NoReturn:
        """Takes the steps from the newest checkpoint to the one that became not finite again, and examines each.

        Raises:
            RunError: what was found.
        """
        start = self._load()
        self.context.say(f"{self.context.stage}: taking steps {start + 1} to {record.step} again, which is slow")
        self._examines = True
        for step, batches in self._batches(start):
            if step == record.step:
                break
            self._step(step, batches)
            self._check_weights(step + 1)
        hint = "the arithmetic of this device is not the same each time: run on without --replay"
        what = f"steps {start + 1} to {record.step} were taken again, and everything was finite"
        raise RunError(what, where=f"stage {self.context.stage}", hint=hint)

    def _is_finite(self, prepared: PreparedModule, loss: Tensor) -> bool:
        """Whether a loss and the gradients are finite; a scaler lets gradients overflow."""
        scaled = self.accelerator.scaler is not None
        gradients = [] if scaled else [p.grad for p in prepared.parameters.values() if p.grad is not None]
        return all_finite(loss, *gradients)

    def _examine(self, prepared: PreparedModule, micro_batch: _MicroBatch, number: int, progress: float) -> None:
        turn = Turn(
            module=prepared.trained_module,
            parameters=prepared.parameters,
            batch=micro_batch.batch,
            draws=micro_batch.draws,
            progress=progress,
            earlier=micro_batch.left,
        )
        torch.manual_seed(derive_seed(self.context.seed, "torch", self._done, rank()))
        with self.accelerator.autocast():
            found = finding(turn, self.task)
        if found is not None:
            where = f"stage {self.context.stage}"
            raise RunError(f"step {self._done + 1}, micro-batch {number} of process {rank()}: {found}", where=where)

    def _batches(self, start: int) -> Iterator[tuple[int, list[Batch]]]:
        """Yields the number of each step and its micro-batches on this process."""
        steps = training_batches(
            self.rows,
            seed=derive_seed(self.context.seed, "data"),
            global_batch=self.config.batch_size,
            accumulation=self.config.accumulation,
            rank=rank(),
            world=world_size(),
            start_step=start,
            total_steps=self.total,
            workers=self.config.workers,
        )
        self._clock.start()
        self._logged_at = (start, time.perf_counter())
        for step, batches in enumerate(steps, start=start):
            moved = [self._copies(batch) for batch in batches]
            self._clock.tick("data")
            yield step, moved
            self._clock.tick("other")

    def _draws(self, step: int, number: int, size: int) -> Draws:
        """The random numbers of micro-batch `number` of this process."""
        first = (number * world_size() + rank()) * size
        seed, rows = derive_seed(self.context.seed, "step", step), range(first, first + size)
        return Draws.for_part(seed, rows, self.config.batch_size, self.accelerator.device)

    def _step(self, step: int, batches: list[Batch]) -> None:
        self._done = step
        # Dropout and drop-path draw from torch's global generator, and must differ between processes.
        torch.manual_seed(derive_seed(self.context.seed, "torch", step, rank()))
        draws = [self._draws(step, number, len(batch)) for number, batch in enumerate(batches)]
        with tf32(self.accelerator.device, on=self._speed.tf32), self._blocks.running():
            self._take_turns([_MicroBatch(*both) for both in zip(batches, draws, strict=True)], step / self.total)
        self.task.after_step(draws[0].child("after_step"))
        if self._kept.average is not None:
            self._kept.average.update()
        self._done = step + 1
        self._clock.tick("optimizer")

    def _take_turns(self, micro_batches: list[_MicroBatch], progress: float) -> None:
        for prepared in self._prepared.values():
            if prepared.trained_module.active(progress):
                self._turn(prepared, micro_batches, progress)

    def _turn(self, prepared: PreparedModule, micro_batches: list[_MicroBatch], progress: float) -> None:
        share = 1.0 / len(micro_batches)
        prepared.trained_module.module.train()
        for number, micro_batch in enumerate(micro_batches):
            with prepared.averaging_gradients(last=micro_batch is micro_batches[-1]):
                self._clock.tick("other")
                loss, logs, left = prepared.forward(micro_batch.batch, micro_batch.draws, progress, micro_batch.left)
                self._clock.tick("forward")
                self.accelerator.backward(loss * share)
                self._clock.tick("backward")
            if self._examines and not self._is_finite(prepared, loss):
                self._examine(prepared, micro_batch, number, progress)
            micro_batch.left[prepared.name] = left
            self._first_not_finite.see(loss, self._done, number)
            self._means.add({f"{prepared.name}/loss": loss, **logs}, share)
        norm = prepared.clip()
        if norm is not None:
            self._means.add({f"{prepared.name}/gradient_norm": norm}, 1.0)
        prepared.step(progress)
        self._clock.tick("optimizer")

    def _log(self, done: int) -> dict[str, float]:
        """Logs the means since the last line; returns the values for the progress bar."""
        values = self._means.take()
        for prepared in self._prepared.values():
            values[f"{prepared.name}/learning_rate"] = prepared.learning_rate
        first, began = self._logged_at
        now = time.perf_counter()
        values["images_per_second"] = (done - first) * self.config.batch_size / (now - began)
        self._logged_at = (done, now)
        scaled = self.accelerator.scaler is not None
        check_values(values, step=done, stage=self.context.stage, scaled=scaled, kept=self._has_checkpoints())
        self.context.log(done, {"epoch": done / self.epoch_steps, **values})
        for warning in self._alarms.see(values, done / self.total):
            self.context.say(f"{self.context.stage}: step {done}: {warning}")
        return {"images/s": values["images_per_second"]} | {n: v for n, v in values.items() if n.endswith("/loss")}

    def _maybe_measure(self, done: int) -> None:
        """Measures at regular intervals, except after the last step, which the stage's own evaluation covers."""
        if self.measure_steps and done % self.measure_steps == 0 and done < self.total:
            values = self.task.measure(self._kept.now())
            self.context.log(done, {"epoch": done / self.epoch_steps, **values})
            self._clock.tick("other")

    def _maybe_checkpoint(self, done: int, stop: StopRequest) -> None:
        every = self.config.checkpoint_every or self.epoch_steps
        regular = done % every == 0 and done < self.total
        stopping = self._stop.asked(stop)
        if regular and self._means:
            self._log(done)
        if regular or stopping:
            self._save(done)
        if stopping:
            what = f"stopped at step {done} of {self.total}; a checkpoint is saved"
            raise Interrupted(what, hint="run the same command to resume")

    def _check_weights(self, done: int) -> None:
        check_modules(self._state.modules, step=done, stage=self.context.stage, kept=self._has_checkpoints())

    def _has_checkpoints(self) -> bool:
        return bool(checkpoints(self.context.checkpoints))

    def _save(self, done: int) -> None:
        sums = self._means.sums()  # of the line that is not complete: a stop must not split it
        scaled = self.accelerator.scaler is not None
        check_values(means_of(sums), step=done, stage=self.context.stage, scaled=scaled, kept=self._has_checkpoints())
        self._check_weights(done)
        self._state.save(done, sums)
        if self.accelerator.is_main_process:
            forget(self.context.checkpoints, done)

    def _resume(self) -> int:
        """Loads the newest checkpoint and drops what was logged after it; returns the number of completed steps."""
        if self.accelerator.is_main_process:
            for line in set_damaged_aside(self.context.checkpoints, recorded=self.context.manifests):
                self.context.say(line)
        barrier()
        done = self._load()
        self.context.forget_log_after(done)
        return done

    def _load(self) -> int:
        values = self._state.load()
        if values is None:
            return 0
        if line := of_other_processes(values):
            self._say(line)
        return int(values["step"])
