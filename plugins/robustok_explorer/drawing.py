"""Draws views: functions from a run and a view's settings to rows of images. None of them keeps anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import torch
from attrs import field, frozen
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.values.guidance import Guidance
from robustok_core.values.ignored import as_it_was_made
from robustok_core.values.images import to_uint8
from robustok_core.values.latents import Latents, LatentSpace
from robustok_explorer.opened_run import Chosen, OpenedRun
from robustok_explorer.views import Keep, Neighbours, Paint, Perturb, Sample
from robustok_toolkit.generator_of_command import guidance_of, sampler_options_of
from robustok_toolkit.guidance_search import recipe_line
from robustok_toolkit.trained_generator import TrainedGenerator

_WHEN = {"": "", "before": ", before", "after": ", after"}


@frozen(kw_only=True, eq=False)
class Tile:
    """An image of a sheet.

    Attributes:
        pixels: (3, H, W) uint8. caption: what it is.
        changed: (N,) bool, the tokens to mark, or None.
    """

    pixels: Tensor
    caption: str
    changed: Tensor | None = None


@frozen(kw_only=True, eq=False)
class Sheet:
    """What a view shows.

    Attributes:
        rows: tiles by the name of their row. space: of the latents, whose grid places the tokens.
        lines: what there is to say about them.
    """

    rows: Mapping[str, Sequence[Tile]]
    space: LatentSpace
    lines: Sequence[str] = field(default=())


def perturb(run: OpenedRun, settings: Perturb) -> Sheet:
    """Images, their reconstructions, and what their perturbed latents decode to."""
    chosen = run.chosen(settings.image, settings.file, settings.num_images)
    clean = run.tokenizer.encode_images(chosen.images)
    table = settings.perturbation.table()
    use = table.pop("use")
    wrong = run.tokenizer.perturbed(clean, use, seed=settings.seed, **table)
    return _compared(run, chosen, clean, wrong, "perturbed")


def keep(run: OpenedRun, settings: Keep) -> Sheet:
    """Images, their reconstructions, and what a generator makes of them that keeps a share sigma."""
    generator = generator_of(run)
    chosen = run.chosen(settings.image, settings.file, settings.num_images)
    clean = run.tokenizer.encode_images(chosen.images)
    options, guidance = sampler_options(run, keeping=True), guidance_of(run.recipe, keeping=True)
    label = class_kept(chosen, settings)
    made = generator.sample_keeping(clean, label, settings.sigma, guidance, settings.seed, **options)
    sheet = _compared(run, chosen, clean, made, "regenerated")
    guided = [f"The generator is guided as in post-training: {recipe_line(guidance)}."] if guidance.active else []
    return attrs.evolve(sheet, lines=[*sheet.lines, *guided])


def paint(run: OpenedRun, settings: Paint) -> Sheet:
    """An image, the one whose tokens it takes, and the result."""
    space = run.tokenizer.tokenizer.space
    tokens = [token_number(token, space, "tokens") for token in settings.tokens]
    target, source = (
        run.chosen(settings.image, settings.file),
        run.chosen(settings.source, settings.source_file),
    )
    clean, taken = run.tokenizer.encode_images(target.images), run.tokenizer.encode_images(source.images)
    painted = painted_with(clean, taken, tokens)
    tiles = [
        Tile(pixels=to_uint8(target.images)[0], caption="painted on"),
        Tile(pixels=to_uint8(source.images)[0], caption="taken from"),
        *_decoded(run, clean, "clean"),
        *_decoded(run, painted, "painted", changed_tokens(clean, painted)),
    ]
    line = f"{len(set(tokens))} of {space.num_tokens} tokens are taken from {source.names[0]}."
    return Sheet(rows={target.names[0]: tiles}, space=space, lines=[line])


def neighbours(run: OpenedRun, settings: Neighbours) -> Sheet:
    """An image with one token replaced by each of the codewords nearest to its own, the token's own first."""
    quantizer, space = run.tokenizer.tokenizer.quantizer, run.tokenizer.tokenizer.space
    if quantizer is None or space.codebook_size is None:
        hint = "`perturb` shows what noise on its vectors does"
        raise RobustokError(f"this tokenizer has no codewords ({space.describe()})", where=run.place, hint=hint)
    token = token_number(settings.token, space, "token")
    chosen = run.chosen(settings.image, settings.file)
    clean = run.tokenizer.encode_images(chosen.images)
    assert clean.codes is not None
    count = min(settings.count, space.codebook_size)
    near, distances = nearest_codes(quantizer, clean.codes[0, token], count)
    replaced = Latents(codes=clean.codes.repeat(count, 1).index_fill(1, torch.tensor([token]).to(near.device), 0))
    assert replaced.codes is not None
    replaced.codes[:, token] = near
    mark = torch.zeros(count, space.num_tokens, dtype=torch.bool)
    mark[:, token] = True
    captions = [f"code {code}, {distance:.3g} away" for code, distance in zip(near.tolist(), distances, strict=True)]
    rows = {
        f"{chosen.names[0]}{_WHEN[name]}": _tiles(decoder.decoded(replaced), captions, mark)
        for name, decoder in run.tokenizers.items()
    }
    line = f"Token {token} has code {int(clean.codes[0, token])}. Distances are those of codewords."
    return Sheet(rows=rows, space=space, lines=[line])


def sample(run: OpenedRun, settings: Sample) -> Sheet:
    """Samples of a class, decoded before and after post-training."""
    generator = generator_of(run)
    labels = generator.labels(settings.class_, settings.count)
    latents = generator.sample_latents(
        settings.class_, settings.count, sample_guidance(run, settings), settings.seed, **sampler_options(run)
    )
    captions = [generator.class_names[label] for label in labels.tolist()]
    rows = {
        f"samples{_WHEN[name]}": _tiles(decoder.decoded(latents), captions) for name, decoder in run.tokenizers.items()
    }
    return Sheet(rows=rows, space=run.tokenizer.tokenizer.space)


def generator_of(run: OpenedRun) -> TrainedGenerator:
    """The run's generator.

    Raises:
        RobustokError: if it has none.
    """
    if run.generator is None:
        what, hint = "this run has no finished generator", "let the run finish first; main_train trains one"
        raise RobustokError(what, where=run.place, hint=hint)
    return run.generator


def sampler_options(run: OpenedRun, *, keeping: bool = False) -> Mapping[str, Any]:
    """The sampler's options in the run's recipe, as `sampler_options_of`."""
    return sampler_options_of(run.recipe, type(generator_of(run).generator), keeping=keeping)


def sample_guidance(run: OpenedRun, settings: Sample) -> Guidance:
    """The guidance of the run's recipe, at the scale of the settings."""
    with as_it_was_made():  # what has no effect at this scale
        return attrs.evolve(guidance_of(run.recipe), scale=settings.guidance)


def class_kept(chosen: Chosen, settings: Keep) -> int | str:
    """The class of the image that a generator keeps a share of."""
    return settings.class_of_file if chosen.label is None else chosen.label


def token_number(token: int, space: LatentSpace, where: str) -> int:
    """A token's number, if there is such a token.

    Raises:
        RobustokError: if there is none.
    """
    if not 0 <= token < space.num_tokens:
        raise RobustokError(f"there is no token {token}", where=where, hint=f"tokens are 0 to {space.num_tokens - 1}")
    return token


def painted_with(latents: Latents, source: Latents, tokens: Sequence[int]) -> Latents:
    """Latents (of one image) with some tokens of another's: codes where there are any, else vectors."""
    if latents.codes is not None:
        assert source.codes is not None
        codes = latents.codes.clone()
        codes[:, list(tokens)] = source.codes[:, list(tokens)]
        return Latents(codes=codes)
    assert latents.vectors is not None
    assert source.vectors is not None
    vectors = latents.vectors.clone()
    vectors[:, list(tokens)] = source.vectors[:, list(tokens)]
    return Latents(vectors=vectors)


def changed_tokens(before: Latents, after: Latents) -> Tensor:
    """(B, N) bool: tokens with another code, or in a continuous space with another vector."""
    if before.codes is not None and after.codes is not None:
        return (before.codes != after.codes).cpu()
    assert before.vectors is not None
    assert after.vectors is not None
    return (before.vectors != after.vectors).any(dim=2).cpu()


def nearest_codes(quantizer: Any, code: Tensor, count: int) -> tuple[Tensor, list[float]]:
    """The codes (count,) int64 nearest to a code, by their codewords, and their distances; the code itself is first."""
    own = quantizer.lookup(code[None])
    near = quantizer.nearest(own, count)[0]
    near = torch.cat([code[None], near[near != code]])[:count]
    return near, (quantizer.lookup(near) - own).float().norm(dim=1).tolist()


def _compared(run: OpenedRun, chosen: Chosen, clean: Latents, made: Latents, verb: str) -> Sheet:
    """Each image in a row: the original, its reconstructions, and what is decoded from the latents `made`."""
    space, changed = run.tokenizer.tokenizer.space, changed_tokens(clean, made)
    originals = [Tile(pixels=pixels, caption="original") for pixels in to_uint8(chosen.images)]
    columns = [originals]
    for latents, caption, mark in ((clean, "clean", None), (made, verb, changed)):
        for name, decoder in run.tokenizers.items():
            captions = [f"{caption}{_WHEN[name]}"] * len(latents)
            columns.append(_tiles(decoder.decoded(latents), captions, mark))
    rows = dict(zip(chosen.names, zip(*columns, strict=True), strict=True))
    counts = dict(zip(chosen.names, changed.sum(dim=1).tolist(), strict=True))
    lines = [f"{name}: {count} of {space.num_tokens} tokens changed." for name, count in counts.items()]
    return Sheet(rows=rows, space=space, lines=lines)


def _decoded(run: OpenedRun, latents: Latents, caption: str, changed: Tensor | None = None) -> list[Tile]:
    """The first of these latents, by each decoder."""
    return [
        _tiles(decoder.decoded(latents[:1]), [f"{caption}{_WHEN[name]}"], changed)[0]
        for name, decoder in run.tokenizers.items()
    ]


def _tiles(batches: Iterable[Tensor], captions: Sequence[str], changed: Tensor | None = None) -> list[Tile]:
    pixels = [image.cpu() for batch in batches for image in batch]
    marks = [None] * len(pixels) if changed is None else list(changed)
    return [
        Tile(pixels=image, caption=caption, changed=mark)
        for image, caption, mark in zip(pixels, captions, marks, strict=True)
    ]
