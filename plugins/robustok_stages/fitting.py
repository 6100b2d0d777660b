"""Whether the parts of a recipe fit each other, found out before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any

import attrs
import torch

from robustok_core.errors import ProblemsError, RobustokError
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.recipe import NamedStage
from robustok_core.recipe.structurer import Path as KeyPath
from robustok_core.recipe.structurer import Problem
from robustok_core.runs.components import COMPONENT_FILE, load_component
from robustok_core.runs.context import StageContext
from robustok_core.runs.files import read_json
from robustok_core.runs.folder import find_artifact
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import LatentSpace
from robustok_toolkit.generating import check_origin, check_space, sampling_options
from robustok_toolkit.latent_files import INDEX, check_latents_of
from robustok_toolkit.latent_fingerprint import latent_fingerprint
from robustok_training import OptimizerConfig, TrainingConfig
from robustok_training.batches import check_parts, steps_per_epoch

#: Makes of an error the same one, said of the option that the keys lead to.
_Say = Callable[..., RobustokError]


def check_tokenizer(context: StageContext) -> Tokenizer:
    """[tokenizer] on the meta device, after its image size was compared with that of [data].

    Raises:
        RobustokError: where the sizes differ.
    """
    tokenizer: Tokenizer = context.sketch("tokenizer")
    check_size(tokenizer, context)
    return tokenizer


def check_size(tokenizer: Tokenizer, context: StageContext) -> None:
    """Compares a tokenizer's image size with that of [data].

    Raises:
        RobustokError: where they differ.
    """
    size = context.dataset().image_size
    if tokenizer.image_size != size:
        raise RobustokError(
            f"tokenizer.image_size is {tokenizer.image_size}, but the images of [data] are {size} pixels wide",
            where=context.recipe.source.place(("tokenizer",)),
            hint=f"set tokenizer.image_size = {size}, or data.image_size = {tokenizer.image_size}",
        )


def check_training(context: StageContext, config: TrainingConfig, optimizer: OptimizerConfig, rows: Sized) -> None:
    """Whether a batch of this stage divides into its parts, the rows hold one, and a step of the training learns.

    Raises:
        RobustokError: naming the option.
    """
    try:
        check_parts(config.batch_size, context.accelerator.num_processes, config.accumulation)
        steps = config.steps(steps_per_epoch(rows, config.batch_size))
    except RobustokError as error:
        raise located(context, error, "batch_size") from error
    if not optimizer.learns(steps):
        what = f"the learning rate is 0 at every step of a training of {steps}: its warm-up begins there"
        hint = "train for more epochs, or set optimizer.warmup = 0"
        raise located(context, RobustokError(what, hint=hint), "optimizer", "warmup")


def rows_of(context: StageContext, artifact: str) -> range | None:
    """The rows of the latents, or the pairs, that [load] names, as far as they are known before anything runs."""
    splits = loaded_file(context, artifact, INDEX).get("splits")
    return None if splits is None else range(sum(part["rows"] for part in next(iter(splits.values()))["parts"]))


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
            problems.append(located(context, RobustokError(what, hint=error.hint), *keys, name))
    if problems:
        raise ProblemsError(problems)


def option_place(context: StageContext, *keys: str) -> str:
    """The file and line of an option of this stage."""
    index = [stage.name for stage in context.recipe.stages].index(context.stage)
    return context.recipe.source.place(("stage", index, *keys))


def located(context: StageContext, error: RobustokError, *keys: str) -> RobustokError:
    """The same error, said of an option of this stage."""
    what = f"{'.'.join(('stage', context.stage, *keys))}: {error.what}"
    return RobustokError(what, where=option_place(context, *keys), hint=error.hint)


def maker(context: StageContext, artifact: str) -> NamedStage | None:
    """The stage of this recipe whose `artifact` this stage reads, None where [load] gives it."""
    before = itertools.takewhile(lambda stage: stage.name != context.stage, context.recipe.stages)
    return next((stage for stage in reversed([*before]) if artifact in stage.spec.factory.makes), None)


def check_not_post_trained(table: Mapping[str, Any], where: str) -> None:
    """Whether a tokenizer, whose component file this is, still has the decoder of its main training.

    Raises:
        RobustokError: it was post-trained.
    """
    if "post_trained" in table:
        hint = "name main training's artifact: the folder artifacts/tokenizer-... of that run, without post_trained"
        raise RobustokError("this tokenizer is post-trained already", where=where, hint=hint)


def loaded_file(context: StageContext, artifact: str, name: str = COMPONENT_FILE) -> Mapping[str, Any]:
    """A JSON file of an artifact that [load] names; empty where there is none yet (the check of [load] reports it)."""
    folder = loaded_folder(context, artifact)
    if folder is None:
        return {}
    try:
        return read_json(folder / name)
    except RobustokError:
        return {}


def loaded_folder(context: StageContext, artifact: str) -> Path | None:
    """The folder of an artifact that [load] names without an importer; None as of `loaded_file`."""
    load = context.recipe.load.get(artifact)
    if load is None or load.importer is not None:
        return None
    try:
        return find_artifact(Path(load.path), artifact)
    except RobustokError:
        return None


def known_space(context: StageContext) -> LatentSpace | None:
    """The tokenizer's latent space, as far as it is known before anything runs."""
    if "tokenizer" in context.recipe.load:
        about = loaded_file(context, "tokenizer")
        if not about:
            return None
        with torch.device("meta"):
            return context.registry.build("tokenizer", about["table"]).space
    return context.sketch("tokenizer").space if context.spec("tokenizer") is not None else None


def check_generator(context: StageContext) -> None:
    """Whether the tokenizer of this stage decodes what the generator that it loads draws, as far as it is known.

    Raises:
        RobustokError: as the run would.
    """
    folder, space = _read_folder(context, "generator"), known_space(context)
    if folder is None:
        return
    about = read_json(folder / COMPONENT_FILE)
    if space is not None:
        check_space(LatentSpace(**about["space"]), folder, space)
    if "tokenizer" in about and (fingerprint := _read_fingerprint(context)) is not None:
        check_origin(folder, fingerprint)


def check_latents(context: StageContext) -> None:
    """Whether the latents that this stage loads are of the tokenizer that it loads.

    Raises:
        RobustokError: as the run would.
    """
    folder = _read_folder(context, "latents")
    if folder is not None and (fingerprint := _read_fingerprint(context)) is not None:
        check_latents_of(folder, fingerprint)


def _read_fingerprint(context: StageContext) -> str | None:
    """The latent fingerprint of the tokenizer that this stage loads; its weights are read once for all stages."""
    folder = _read_folder(context, "tokenizer")
    if folder is None:
        return None
    key = f"latent fingerprint of {folder}"
    if key not in context.built:
        tokenizer: Any = load_component(context.registry, folder)
        context.built[key] = latent_fingerprint(tokenizer)
    return context.built[key]


def _read_folder(context: StageContext, artifact: str) -> Path | None:
    """The folder of an artifact that this stage reads, where [load] gives it and not a stage before."""
    return loaded_folder(context, artifact) if maker(context, artifact) is None else None


def known_classes(context: StageContext) -> list[str] | None:
    """The names of the classes, as far as they are known before anything runs."""
    if context.spec("data") is not None:
        return list(context.dataset().class_names)
    about = loaded_file(context, "latents", INDEX) or loaded_file(context, "generator")
    if "class_names" in about:
        return list(about["class_names"])
    return [str(number) for number in range(about["num_classes"])] if "num_classes" in about else None


def generator_class(context: StageContext) -> type[Generator] | None:
    """The class of the artifact "generator", as far as it is known before anything runs."""
    if "generator" not in context.recipe.load:
        spec = context.spec("generator")
        return None if spec is None else spec.factory
    about = loaded_file(context, "generator")
    found = context.registry.find("generator", about["table"]["use"]) if about else None
    return None if isinstance(found, Problem) else found


def sketch_generator(context: StageContext) -> Generator | None:
    """The artifact "generator" on the meta device, where its space and classes are known before anything runs."""
    if "generator" in context.recipe.load:
        about = loaded_file(context, "generator")
        if not about:
            return None
        with torch.device("meta"):
            return context.registry.build(
                "generator", about["table"], LatentSpace(**about["space"]), about["num_classes"]
            )
    space, classes = known_space(context), known_classes(context)
    if context.spec("generator") is None or space is None or classes is None:
        return None
    return context.sketch("generator", space, len(classes))


def read_sampling(context: StageContext, factory: type[Generator], table: Mapping[str, Any], *keys: str) -> Any:
    """The options of the generator's sampler from the raw table of this stage's option `keys`.

    Raises:
        ProblemsError: every mistake, with its place in the recipe.
    """
    return _read_sampling(factory, table, lambda error, *more: located(context, error, *keys, *more))


def check_sampling(context: StageContext, guidance: Guidance, table: Mapping[str, Any], *keys: str) -> None:
    """Refuses options that the generator's sampler does not have, and guidance of one that cannot be guided.

    Args:
        guidance, table: the options `guidance` and `sampling` of this stage, or of its option `keys`.
    """
    _check_sampling(context, guidance, table, lambda error, *more: located(context, error, *keys, *more))


def check_post_trainer(context: StageContext) -> None:
    """As `check_sampling`, of the options `guidance` and `sampling` of [post_trainer], where it has them."""
    config = context.recipe.tables["post_trainer"].config
    options = {option.name for option in attrs.fields(type(config))}
    guidance = config.guidance if "guidance" in options else Guidance()
    table = config.sampling if "sampling" in options else {}

    def say(error: RobustokError, *keys: str) -> RobustokError:
        what, place = ".".join(("post_trainer", *keys)), context.recipe.source.place(("post_trainer", *keys))
        return RobustokError(f"{what}: {error.what}", where=place, hint=error.hint)

    _check_sampling(context, guidance, table, say)


def _read_sampling(factory: type[Generator], table: Mapping[str, Any], say: _Say) -> Any:
    def say_option(path: KeyPath, what: str, hint: str | None) -> RobustokError:
        return say(RobustokError(what, hint=hint), *map(str, path))

    return sampling_options(factory, table, say_option)


def _check_sampling(context: StageContext, guidance: Guidance, table: Mapping[str, Any], say: _Say) -> None:
    factory = generator_class(context)
    if factory is not None:
        _read_sampling(factory, table, lambda error, *path: say(error, "sampling", *path))
    generator = sketch_generator(context)
    if generator is not None:
        try:
            generator.check_guidance(guidance)
        except RobustokError as error:
            raise say(error, "guidance", "scale") from error
