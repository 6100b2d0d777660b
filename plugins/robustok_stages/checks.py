"""Checks that several stages make before anything runs. They read promises and the recipe, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from robustok_core.errors import ProblemsError, RobustokError
from robustok_core.kinds.stage import StageContext
from robustok_core.runs.promises import GeneratorPromise, TokenizerPromise
from robustok_toolkit.generating import check_origin, check_space
from robustok_training import OptimizerConfig, TrainingConfig
from robustok_training.batches import check_parts, steps_per_epoch


def check_image_size(context: StageContext, tokenizer: TokenizerPromise) -> None:
    """Compares a tokenizer's image size with that of [data].

    Raises:
        RobustokError: if they differ.
    """
    size = context.dataset().image_size
    if tokenizer.image_size != size:
        raise RobustokError(
            f"tokenizer.image_size is {tokenizer.image_size}, but the images of [data] are {size} pixels wide",
            where=str(tokenizer.folder or context.location(table="tokenizer")),
            hint=f"set tokenizer.image_size = {size}, or data.image_size = {tokenizer.image_size}",
        )


def check_training(context: StageContext, config: TrainingConfig, optimizer: OptimizerConfig, num_rows: int) -> None:
    """Whether a batch of this stage divides into its parts, the rows hold one, and a step of the training learns.

    Raises:
        RobustokError: naming the option.
    """
    try:
        check_parts(config.batch_size, context.accelerator.num_processes, config.accumulation)
        steps = config.steps(steps_per_epoch(range(num_rows), config.batch_size))
    except RobustokError as error:
        raise context.located(error, "batch_size") from error
    if not optimizer.learns(steps):
        what = f"the learning rate is 0 at every step of a training of {steps}: its warm-up begins there"
        hint = "train for more epochs, or set optimizer.warmup = 0"
        raise context.located(RobustokError(what, hint=hint), "optimizer", "warmup")


def check_each(context: StageContext, checks: Mapping[str, Callable[[], None]], *keys: str) -> None:
    """Does the check of each entry of this stage's option `keys`.

    Raises:
        ProblemsError: what they found, all of it.
    """
    problems = []
    for name, check in checks.items():
        try:
            check()
        except RobustokError as error:
            what = f"{error.where}: {error.what}" if error.where else error.what
            problems.append(context.located(RobustokError(what, hint=error.hint), *keys, name))
    if problems:
        raise ProblemsError(problems)


def check_main_trained(tokenizer: TokenizerPromise) -> None:
    """Whether a tokenizer still has the decoder of its main training.

    Raises:
        RobustokError: it was post-trained.
    """
    if tokenizer.post_trained:
        hint = "name main training's artifact: the folder artifacts/tokenizer-... of that run, without post_trained"
        where = None if tokenizer.folder is None else str(tokenizer.folder)
        raise RobustokError("this tokenizer is post-trained already", where=where, hint=hint)


def check_generator(generator: GeneratorPromise, tokenizer: TokenizerPromise) -> None:
    """Whether a tokenizer decodes what a generator samples, and is the one on whose latents it was trained.

    Raises:
        RobustokError: it is another one, as far as both are known.
    """
    name = generator.name
    where = None if generator.folder is None else str(generator.folder)
    check_space(name, generator.space, tokenizer.space, where)
    if generator.tokenizer is not None and tokenizer.fingerprint is not None:
        check_origin(name, generator.tokenizer, tokenizer.fingerprint(), where)
