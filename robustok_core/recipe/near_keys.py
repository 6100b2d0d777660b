"""Where a key belongs that stands in the wrong table of a recipe, or has another of its common names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from typing import Any

import attrs

from robustok_core.errors import misspelt
from robustok_core.kinds import TABLES
from robustok_core.recipe.source import stage_name
from robustok_core.recipe.structurer import Path, Problem, nested_config
from robustok_core.values.spec import is_sampler_options

#: What other toolkits and papers call an option, and its path here.
COMMON_NAMES: Mapping[str, tuple[str, ...]] = {
    ours: tuple(theirs.split())
    for ours, theirs in {
        "accumulation": "accumulate_grad_batches grad_accum gradient_accumulation gradient_accumulation_steps",
        "batch_size": "batch batchsize bs bsz global_batch_size per_device_train_batch_size train_batch_size",
        "codebook_size": "codebook k n_e n_embed num_codes num_embeddings vocab_size",
        "commitment": "beta_commit commitment_cost commitment_weight",
        "depth": "layers n_layer n_layers num_blocks num_hidden_layers num_layers",
        "ema_decay": "decay ema ema_rate",
        "epochs": "max_epochs n_epochs nepochs num_epochs num_train_epochs",
        "guidance.scale": "cfg cfg_scale guidance_scale",
        "image_size": "img_size input_size resolution",
        "kl_weight": "beta_kl kl kl_loss_weight",
        "label_dropout": "cfg_dropout class_dropout class_dropout_prob cond_drop_prob",
        "limit": "max_images num_images",
        "num_heads": "attention_heads heads n_head n_heads num_attention_heads",
        "num_samples": "n_samples samples",
        "optimizer.betas": "adam_betas beta1 beta2",
        "optimizer.clip": "clip_grad clip_grad_norm grad_clip gradient_clip max_grad_norm",
        "optimizer.learning_rate": "base_lr lr",
        "optimizer.schedule": "lr_schedule lr_scheduler scheduler",
        "optimizer.warmup": "warmup_epochs warmup_steps",
        "optimizer.weight_decay": "wd",
        "path": "data_dir data_path dataset_path root",
        "precision": "amp dtype mixed_precision",
        "sampling.steps": "num_inference_steps num_sampling_steps sampling_steps",
        "sampling.temperature": "temp",
        "seed": "random_seed",
        "train_limit": "max_train_images train_size",
        "weight": "coefficient loss_weight",
        "width": "code_dim d_model dim embed_dim embedding_dim hidden_dim hidden_size latent_dim",
        "workers": "n_workers num_workers",
    }.items()
}
_SPELLING = 0.75
_MOST = 3

#: Finds the class of (kind, name), or returns a Problem; as in `Structurer`.
Lookup = Callable[[str, str, Path], "type | Problem"]
Names = tuple[str, ...]


def with_near_keys(
    problems: Sequence[Problem], table: Mapping[str, Any], keys: Callable[[], Iterable[Names]]
) -> list[Problem]:
    """Problems whose unknown keys get a hint where in the table they belong.

    Args:
        problems: of a recipe, or of a table of one component. table: as it was written.
        keys: gives `recipe_keys` or `component_keys` of the table.
    """
    if not any(problem.unknown for problem in problems):
        return list(problems)
    known = list(keys())
    return [_better(problem, table, known) if problem.unknown else problem for problem in problems]


def _better(problem: Problem, table: Mapping[str, Any], known: Sequence[Names]) -> Problem:
    wanted = _with_leaf(_named(table, problem.path), table, problem.path)
    places = near_keys(wanted, known)
    above = wanted[: len(problem.path) - 1]
    siblings = list(dict.fromkeys(path[len(above)] for path in known if path[: len(above)] == above != path))
    spelling = misspelt(wanted[len(above)], siblings)
    exact = any(set(wanted[:-1]) <= set(place) for place in places)
    if not places or (spelling and not exact):
        return problem
    shown = [place[len(above) :] if above and place[: len(above)] == above else place for place in places]
    return attrs.evolve(problem, hint=f"did you mean {' or '.join(repr('.'.join(place)) for place in shown)}?")


def near_keys(wanted: Names, known: Sequence[Names]) -> list[Names]:
    """The paths that may be meant by one that is not known: the nearest ones, up to three if they are equally near."""
    names = _spellings(wanted[-1], known)
    found = [path for path in known if any(path[-len(name) :] == name for name in names)]
    scores = {path: _nearness(wanted[:-1], path) for path in found}
    best = [path for path in found if scores[path] == max(scores.values())]
    return best if len(best) <= _MOST else []


def _spellings(key: str, known: Sequence[Names]) -> list[Names]:
    """The ends of paths that a key may stand for: itself elsewhere, what is called so by others, or a near spelling."""
    lower = key.lower()
    if ours := [tuple(name.split(".")) for name, others in COMMON_NAMES.items() if lower in others]:
        return [*ours, (lower,)]
    names = sorted({path[-1] for path in known})
    return [(name,) for name in ([lower] if lower in names else get_close_matches(lower, names, 1, _SPELLING))]


def _nearness(above: Names, path: Names) -> int:
    """How near a path is: it holds the tables above the key, begins like them, and is short."""
    held = sum(any(_alike(name, other) for other in path[:-1]) for name in above if name != "stage")
    alike = next((n for n, (one, other) in enumerate(zip(above, path, strict=False)) if one != other), len(above))
    return 3 * held + alike - len(path)


def _alike(name: str, other: str) -> bool:
    return name in other.split("_") or SequenceMatcher(None, name, other).ratio() >= _SPELLING


def _named(table: Mapping[str, Any], path: Path) -> Names:
    """A path with the names of stages in place of their numbers."""
    return tuple(
        stage_name(table["stage"][key]) if number == 1 and path[0] == "stage" and isinstance(key, int) else str(key)
        for number, key in enumerate(path)
    )


def _with_leaf(names: Names, table: Any, path: Path) -> Names:
    """An unknown table's path goes on to the first key that is set in it."""
    held = table
    for key in path:
        held = held[key]
    while isinstance(held, Mapping) and held:
        key, held = next(iter(held.items()))
        names = (*names, str(key))
    return names


def recipe_keys(table: Mapping[str, Any], find: Lookup, run: type) -> Iterator[Names]:
    """The path of every option that a recipe with these components has; stages go by their names.

    Args:
        run: the class of the table [run].
    """
    generator = _class_in(table.get("generator"), "generator", find)
    yield from _config_keys(run, {}, ("run",), find, generator)
    for name, kind in TABLES.items():
        yield from component_keys(kind, table.get(name), (name,), find, generator)
    stages = table.get("stage")
    for stage in stages if isinstance(stages, list) else ():
        yield from component_keys("stage", stage, ("stage", stage_name(stage)), find, generator)


def component_keys(kind: str, table: Any, path: Names, find: Lookup, generator: type | None = None) -> Iterator[Names]:
    """The path of every option of a component, and of the components in it."""
    factory = _class_in(table, kind, find)
    if factory is not None:
        yield from _config_keys(factory.Config, table, path, find, generator)  # type: ignore[attr-defined]


def _config_keys(cls: type, table: Any, path: Names, find: Lookup, generator: type | None) -> Iterator[Names]:
    table = table if isinstance(table, Mapping) else {}
    for option in attrs.fields(attrs.resolve_types(cls)):
        here = (*path, option.name)
        kind, held = option.metadata.get("kind"), table.get(option.name, option.metadata.get("table"))
        yield here
        if kind is not None and option.metadata.get("named"):
            for name, one in (held if isinstance(held, Mapping) else {}).items():
                yield from component_keys(kind, one, (*here, str(name)), find, generator)
        elif kind is not None:
            yield from component_keys(kind, held, here, find, generator)
        elif is_sampler_options(option) and generator is not None:
            yield from _config_keys(generator.Sampling, {}, here, find, None)  # type: ignore[attr-defined]
        elif (nested := nested_config(option.type)) is not None:
            yield from _config_keys(nested, held, here, find, generator)


def _class_in(table: Any, kind: str, find: Lookup) -> type | None:
    """The class that a table names; None if it names none."""
    name = table.get("use") if isinstance(table, Mapping) else None
    found = find(kind, name, ()) if isinstance(name, str) else None
    return None if isinstance(found, Problem) else found
