"""The codebook: where its codes lie, and how often images use them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robustok_core.errors import RobustokError
from robustok_core.values.numbers import number_text
from robustok_report.sections.reconstructions import spread_rows
from robustok_toolkit.latent_files import LatentRows
from robustok_toolkit.report_parts import Bars, Part, Points, Section, Text
from robustok_toolkit.reported_run import ReportedRun
from robustok_training.batches import class_balanced_order

#: Up to this many codes t-SNE takes a few seconds; larger codebooks are projected on their principal components.
_MOST_FOR_TSNE = 1024
#: Codes that the map shows, and codes of a codebook whose usage is drawn one by one.
_MOST_SHOWN, _MOST_BARS = 3000, 1024
#: Images whose codes are counted: those in the artifact "latents", or, without one, encoded for this.
_COUNTED, _ENCODED = 20000, 200


def codebook(run: ReportedRun) -> Section | None:
    """The map of the codebook coloured by usage, and the usage of its codes in order."""
    tokenizer = run.tokenizer
    space = tokenizer.tokenizer.space
    if space.codebook_size is None or tokenizer.tokenizer.quantizer is None:
        return None
    codes, where = _codes(run)
    counts = np.bincount(codes.ravel(), minlength=space.codebook_size)
    shares = counts / counts.sum() * 100
    shown = _shown(counts)
    with torch.no_grad():
        words = tokenizer.tokenizer.quantizer.lookup(torch.as_tensor(shown, device=tokenizer.device)).cpu().numpy()
    places, how = _flattened(words, space.codebook_size)
    which = "Codewords" if len(shown) == len(counts) else f"{len(shown):,} of the {len(counts):,} codewords"
    names = [f"code {code}: {counts[code]:,} times" for code in shown]
    colours = np.log10(np.maximum(counts[shown], 0.5)).tolist()
    map_ = Points(
        f"{which}, {how}", places[:, 0].tolist(), places[:, 1].tolist(), names, x="", y="", colours=colours,
        colour="log₁₀ of uses",
    )  # fmt: skip
    used = int((counts > 0).sum())
    text = (
        f"{used:,} of {space.codebook_size:,} codes occur in {where}; "
        f"the most frequent one makes up {number_text(float(shares.max()), 2)} % of the tokens."
    )
    parts: list[Part] = [Text(text), map_, _usage(shares)]
    why = "Codes that lie close draw nearly the same, which is what perturbation asks of them; unused ones are wasted."
    return Section("Codebook", parts, why=why)


def _codes(run: ReportedRun) -> tuple[NDArray[Any], str]:
    """Codes (n, N) of images, and which images these are."""
    try:
        rows = LatentRows(run.artifact("latents"), "train")
    except RobustokError:
        split = run.data.validation
        chosen = class_balanced_order(split.labels)[:_ENCODED].tolist()
        codes = run.tokenizer.encode_images(split.load(chosen).images).codes
        assert codes is not None
        return codes.cpu().numpy(), f"{len(chosen):,} held-out images"
    chosen = spread_rows(_COUNTED, len(rows))
    codes = rows.load(chosen).latents.codes
    assert codes is not None
    return codes.numpy(), f"{len(chosen):,} training images"


def _shown(counts: NDArray[Any]) -> list[int]:
    """The codes on the map: all, or in a large codebook the same share of the frequent and of the rare ones."""
    order = np.argsort(-counts, kind="stable")
    return np.sort(order[spread_rows(_MOST_SHOWN, len(order))]).tolist()


def _flattened(words: NDArray[np.float32], size: int) -> tuple[NDArray[Any], str]:
    """Places (n, 2) of codewords (n, D) on a map, and how they were found."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if words.shape[1] <= 2:
        return np.pad(words, ((0, 0), (0, 2 - words.shape[1]))), "as they are"
    if size > _MOST_FOR_TSNE or len(words) < 10:
        return PCA(2, svd_solver="full").fit_transform(words), "on their first two principal components"
    perplexity = min(30, (len(words) - 1) / 3)
    places = TSNE(2, init="pca", perplexity=perplexity, random_state=0, max_iter=500).fit_transform(words)
    return places, "by t-SNE"


def _usage(shares: NDArray[Any]) -> Bars:
    """The shares in falling order; in a large codebook, the mean of each run of neighbouring ranks."""
    ordered = np.sort(shares)[::-1]
    if len(ordered) > _MOST_BARS:
        groups = np.array_split(ordered, _MOST_BARS)
        positions = np.cumsum([0, *(len(group) for group in groups[:-1])]) + 1
        title = f"Usage of the codes, means of {_lengths(groups)} neighbouring ranks"
        return _bars(title, positions.tolist(), [float(group.mean()) for group in groups])
    return _bars("Usage of the codes", list(range(1, len(ordered) + 1)), ordered.tolist())


def _lengths(groups: Sequence[NDArray[Any]]) -> str:
    """How many ranks a bar stands for: all alike, or two neighbouring numbers."""
    return " or ".join(f"{length:,}" for length in sorted({len(group) for group in groups}))


def _bars(title: str, positions: list[int], heights: list[float]) -> Bars:
    return Bars(title, positions, heights, x="rank of the code", y="share of the tokens, %")
