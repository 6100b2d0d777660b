"""Checks that several stages make before anything runs. They read only promises and the recipe."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from robustok_core.errors import ProblemsError, RobustokError
from robustok_core.kinds.features import Features
from robustok_core.kinds.promise import LOADED, is_local, origin_of
from robustok_core.kinds.stage import StageContext
from robustok_core.runs.components import WEIGHTS_FILE
from robustok_core.runs.fingerprints import content_fingerprint
from robustok_core.runs.promises import GeneratorPromise, TokenizerPromise
from robustok_core.values.ignored import changed_options
from robustok_core.values.latents import LatentSpace
from robustok_core.values.result import free_name
from robustok_core.values.spec import Spec
from robustok_toolkit.generating import check_origin, check_space
from robustok_toolkit.latent_neighbours import memory_problem
from robustok_training import OptimizerConfig, TrainingConfig
from robustok_training.batches import check_parts, steps_per_epoch

_log = logging.getLogger(__name__)

#: The largest share of the first step's weights in an average of weights that goes without saying. The paper's
#: post-training, with a decay of 0.9999 in 7,800 steps, keeps 0.46 of them.
_MOST_OF_FIRST = 0.5


def check_image_size(context: StageContext, tokenizer: TokenizerPromise) -> None:
    """Checks that a tokenizer's image size is that of [data].

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


def check_of_space(
    context: StageContext,
    config: Any,
    space: LatentSpace,
    *,
    of_codes: Sequence[str] = (),
    of_vectors: Sequence[str] = (),
) -> None:
    """Checks that no option of this stage is set that the latent space leaves without effect.

    Args:
        of_codes, of_vectors: the options that have an effect only on codes, and only on vectors.

    Raises:
        RobustokError: if the value of one is not its default, located at the option.
    """
    has, has_not, names = ("codes", "vectors", of_vectors) if space.codebook_size else ("vectors", "codes", of_codes)
    for name in changed_options(config, *names):
        what = f"it is of {has_not}, and this latent space has {has} ({space.describe()})"
        raise context.located(RobustokError(what, hint=f"leave {name} out"), name)


def check_training(context: StageContext, config: TrainingConfig, optimizer: OptimizerConfig, num_rows: int) -> None:
    """Checks that a batch divides into micro-batches, that the rows fill a batch, and that some step learns.

    Warns where the average of the weights that is kept is mostly the first step's.

    Raises:
        RobustokError: if not, located at the option.
    """
    try:
        check_parts(config.batch_size, context.processes, config.accumulation)
        steps = config.steps(steps_per_epoch(range(num_rows), config.batch_size))
    except RobustokError as error:
        raise context.located(error, "batch_size") from error
    if not optimizer.learns(steps):
        what = f"the learning rate is 0 at every step (steps: {steps}), because the warm-up starts at 0"
        hint = "train for more epochs, or set optimizer.warmup = 0"
        raise context.located(RobustokError(what, hint=hint), "optimizer", "warmup")
    first = config.share_of_first(steps)
    if first > _MOST_OF_FIRST:
        what = f"{first:.0%} of the average that is kept are the weights of the first of {steps:,} steps"
        hint = f"set ema_decay to at most {_decay_for(steps):g}, or to 0 for the last weights, or train for longer"
        warn(context, RobustokError(what, hint=hint), "ema_decay")


def _decay_for(steps: int) -> float:
    """The largest decay, to two digits of what is missing to 1, that leaves a hundredth of the first weights."""
    missing = 1.0 - 0.01 ** (1.0 / (steps - 1))
    digits = 1 - math.floor(math.log10(missing))
    return round(1.0 - math.ceil(missing * 10**digits) / 10**digits, digits)


def check_held_latents(context: StageContext, space: LatentSpace, count: int, *keys: str) -> None:
    """Warns if the latents of `count` images, which something holds in memory, are more than this machine's memory.

    The machine that runs may have more, so nothing is refused before the stage begins.

    Args:
        keys: the option of this stage.
    """
    if (problem := memory_problem(space, count)) is not None:
        warn(context, problem, *keys)


def warn(context: StageContext, problem: RobustokError, *keys: str) -> None:
    """Says of an option of this stage that it is hardly meant, before anything runs; nothing is refused."""
    _log.warning("%s", context.located(problem, *keys))


def check_each(context: StageContext, checks: Mapping[str, Callable[[], None]], *keys: str) -> None:
    """Runs a check for each entry of this stage's option `keys`.

    Raises:
        ProblemsError: all problems that the checks report, located at the entries.
    """
    problems = []
    for name, check in checks.items():
        try:
            check()
        except RobustokError as error:
            found = (RobustokError(problem.placed, hint=problem.hint) for problem in error.problems)
            problems += [context.located(problem, *keys, name) for problem in found]
    if problems:
        raise ProblemsError(problems)


def check_main_trained(
    context: StageContext, tokenizer: TokenizerPromise, made_of: Mapping[str, str] | None = None
) -> None:
    """Checks that a tokenizer still has the decoder of its main training, or that of another round's pairs.

    Args:
        made_of: what `made_of` gave for the pairs, of another round too; None where there are none.

    Raises:
        RobustokError: if it is known to be post-trained, and the pairs were not made with it.
    """
    if not tokenizer.post_trained:
        return
    if made_of is None or "tokenizer" not in made_of or _is_another(tokenizer, made_of):
        hint = (
            "load the tokenizer of main training: the folder artifacts/tokenizer-... whose component.json has no "
            "post_trained; or set another_round = true in the stage that makes the pairs"
        )
        if made_of is not None:
            hint = "load the tokenizer that the pairs were made with"
        if tokenizer.decoder_stage is not None:
            hint = (
                f"stage {tokenizer.decoder_stage!r} before this one post-trains it: remove one of the two, or make "
                "pairs of it first, with another_round = true"
            )
        where = str(tokenizer.folder or context.location())
        raise RobustokError("this tokenizer is already post-trained", where=where, hint=hint)


def made_of(tokenizer: TokenizerPromise, generator: GeneratorPromise) -> dict[str, str]:
    """Which tokenizer and generator something is made with: content hashes of their weights, or their origins."""
    return {"tokenizer": _identity(tokenizer), "generator": _identity(generator)}


def _identity(component: TokenizerPromise | GeneratorPromise) -> str:
    """What tells a component's weights from others: their content hash, or the last stage that changes them.

    `LOADED` if that is not known yet: of a published checkpoint, of what another run will make, or where the promise
    of a stage does not say what it is.
    """
    if component.folder is not None:
        return content_fingerprint(component.folder / WEIGHTS_FILE)
    decoder_stage = component.decoder_stage if isinstance(component, TokenizerPromise) else None
    return origin_of(decoder_stage) or component.origin or LOADED


def _is_another(component: TokenizerPromise | GeneratorPromise, recorded: Mapping[str, str]) -> bool:
    """Whether this is known to be another tokenizer or generator than the one that is recorded."""
    before, now = recorded.get(_kind(component)), _identity(component)
    if before is None or before == now:
        return False
    return LOADED not in (before, now) or (is_local(before) and is_local(now))


def _kind(component: TokenizerPromise | GeneratorPromise) -> str:
    return "tokenizer" if isinstance(component, TokenizerPromise) else "generator"


def check_made_of(
    context: StageContext,
    component: TokenizerPromise | GeneratorPromise,
    recorded: Mapping[str, str],
    what_was_done: str,
) -> None:
    """Checks that something was made, or will be, with this tokenizer or generator.

    Args:
        recorded: what `made_of` gave; empty if nothing is recorded.
        what_was_done: for the message, "pairs were not made".

    Raises:
        RobustokError: if it was made with another.
    """
    if _identity(component) != LOADED and _is_another(component, recorded):
        kind = _kind(component)
        what = f"these {what_was_done} with the {kind} in {component.folder or _identity(component)}"
        raise RobustokError(what, where=context.location(), hint=f"load the {kind} of the run that made them")


def check_made_by(context: StageContext, recorded: Mapping[str, Any], what_was_done: str, instead: str) -> None:
    """Checks that something was made, or will be, as [post_trainer] says.

    Args:
        recorded: the table of the post-trainer that made it; empty if nothing is recorded.
        what_was_done: for the message, "pairs were made". instead: for the hint, "make other pairs".

    Raises:
        RobustokError: if it was made in another way, located at the option.
    """
    table = context.spec("post_trainer").table()
    for name, value in recorded.items():
        if not _agrees(value, table.get(name)):
            what = f"the {what_was_done} with {name} = {value!r}, not {table.get(name)!r}"
            where = context.location(name, table="post_trainer")
            raise RobustokError(what, where=where, hint=f"set the same in [post_trainer], or {instead}")


def _agrees(recorded: Any, asked: Any) -> bool:
    """Whether a recorded value is the one asked for; sampler options missing from the recipe are not compared."""
    if isinstance(recorded, Mapping) and isinstance(asked, Mapping):
        return all(recorded.get(name) == value for name, value in asked.items())
    return recorded == asked


def check_generator(context: StageContext, generator: GeneratorPromise, tokenizer: TokenizerPromise) -> None:
    """Checks that a tokenizer has a generator's latent space and, if both are known, made its training latents.

    Raises:
        RobustokError: if it does not.
    """
    where = str(generator.folder or context.location())
    check_space(generator.name, generator.space, tokenizer.space, where)
    if (known := latents_tokenizer(generator.tokenizer, tokenizer)) is not None:
        check_origin(generator.name, str(generator.tokenizer), known, where)


def latents_tokenizer(recorded: str | None, tokenizer: TokenizerPromise) -> str | None:
    """What is to be compared with the tokenizer that is recorded of latents; None if they cannot be compared yet.

    Args:
        recorded: a latent fingerprint, or the origin of a tokenizer that a stage of this recipe trains.
    """
    if recorded is None:
        return None
    if is_local(recorded):
        return tokenizer.origin or ("one that is loaded" if tokenizer.is_loaded else None)
    return None if tokenizer.fingerprint is None else tokenizer.fingerprint()


def names_of(metrics: Mapping[str, Spec]) -> Sequence[str] | None:
    """The names of the results of a stage's metrics; None if one does not know its own before it has measured."""
    networks: dict[str, Features] = {}

    def network(spec: Spec) -> Features:
        key = json.dumps(spec.table(), sort_keys=True)
        if key not in networks:
            networks[key] = spec.build()
        return networks[key]

    found: list[str] = []
    for metric, spec in metrics.items():
        names: Sequence[str] | None = spec.build().result_names(network)
        if names is None:
            return None
        for name in names:
            found.append(free_name(name, metric, found))
    return found
