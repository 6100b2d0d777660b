"""Features of sets of images, which sample metrics compare."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist
from attrs import frozen
from rich.console import Console
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.features import Features
from robustok_core.kinds.sample_metric import ImageFeatures
from robustok_core.values.full_precision import full_precision
from robustok_core.values.spec import Spec
from robustok_toolkit.image_files import shown_size
from robustok_toolkit.shared_cache import CacheEntry
from robustok_training.batches import evaluation_batches
from robustok_training.distributed import communication_device, rank, world_size
from robustok_training.progress import StepProgress

#: Returns the same network for equal configurations.
Networks = Callable[[Spec], Features]

_ROWS_AT_ONCE = 4096
#: What the processes exchange in one piece.
_BYTES_AT_ONCE = 2**24


class SharedFeatures:
    """Builds each network once, however many metrics use it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._built: dict[str, Features] = {}

    def __call__(self, spec: Spec) -> Features:
        """The network of a configuration, built on the first call."""
        key = repr(spec.table())
        if key not in self._built:
            self._built[key] = spec.build().to(self._device)
        return self._built[key]


@frozen(kw_only=True)
class Extraction:
    """How the features of images are computed, the same for all sets that are compared.

    Attributes:
        networks: returns the network of a configuration, on `device`: a `SharedFeatures`.
        device: where the networks compute.
        batch_size: images per batch, on each process.
        workers: processes that load images.
        console: where progress is shown.
    """

    networks: Networks
    device: torch.device
    batch_size: int = 100
    workers: int = 0
    console: Console | None = None


class KnownNetworkFeatures(ImageFeatures):
    """A set of images that knows the networks its features come from.

    Attributes:
        networks: returns the network of a configuration.
        open_other: opens another set of real images by name and limit; None if there is none beside this one.
    """

    networks: Networks
    open_other: Callable[[str, int | None], ImageFeatures] | None = None

    def other(self, name: str, limit: int | None = None) -> ImageFeatures:
        return super().other(name, limit) if self.open_other is None else self.open_other(name, limit)

    @property
    def statistics(self) -> Mapping[str, int] | None:
        """The widths of the networks whose moments are published, by name; None if the images give the moments."""
        return None

    @property
    @abstractmethod
    def picture_size(self) -> tuple[int, int] | None:
        """Height and width of the images, in pixels; None if only statistics are known."""


def network_of(network: Spec, images: ImageFeatures) -> Features:
    """The network behind the features of a set of images, for its name, width and device.

    It is built again if the set does not know it.
    """
    return images.networks(network) if isinstance(images, KnownNetworkFeatures) else network.build()


def require_classifier(network: Features) -> None:
    """Raises RobustokError if a network gives no class scores."""
    if network.num_logits == 0:
        raise RobustokError(f"the features {network.name!r} have no classifier, so they give no class scores")


def singular_note(count: int, width: int) -> str | None:
    """A note for the user if `count` images are too few for `width` features, else None."""
    if count > width:
        return None
    return (
        f"{count} images are too few for {width} features: the covariance is singular, and the Fréchet distance is "
        "dominated by its bias; compare it only with distances of the same number of images"
    )


def sizes_problem(samples: KnownNetworkFeatures, reference: KnownNetworkFeatures) -> str | None:
    """What is wrong if two sets have images of different sizes, else None.

    Every feature network resizes its input, so it would compare them all the same, as ADM's evaluator does. But a
    distance between small and large images is mostly that between blurred and sharp ones.
    """
    sizes = samples.picture_size, reference.picture_size
    if None in sizes or sizes[0] == sizes[1]:
        return None
    own, other = map(shown_size, sizes)  # type: ignore[arg-type]
    return f"the images of {samples.name} have {own} pixels, those of {reference.name} {other}"


def sorted_note(samples: ImageFeatures) -> str | None:
    """A note for the user if the samples are known to be sorted by class, else None."""
    if not isinstance(samples, ExtractedFeatures):
        return None
    labels = samples.images.labels
    num_classes = len(labels.unique())
    if num_classes in (1, len(labels)) or bool((labels.diff() < 0).any()):
        return None
    return (
        "these samples are sorted by class: an Inception Score in file order sees few classes per split, which lowers "
        "it (set shuffle = true of inception_score)"
    )


class ExtractedFeatures(KnownNetworkFeatures):
    """Features of images; each network sees each image once, however often its features are requested.

    With several processes, each extracts its share and all hold all features, so all of them must make the
    same requests in the same order.

    Args:
        images: read in order, without augmentation.
        extraction: how features are computed.
        name: for messages.
        cache: folder that stores features and moments by content, for references that other runs use again.
        limit: use only this many images, the first of `class_balanced_order`.
    """

    def __init__(
        self,
        images: Images,
        extraction: Extraction,
        *,
        name: str,
        cache: Path | None = None,
        limit: int | None = None,
    ) -> None:
        self.images, self.name, self.networks = images, name, extraction.networks
        self._extraction, self._cache, self._limit = extraction, cache, limit
        self._results: dict[tuple[str, str], Mapping[str, Tensor]] = {}

    def __len__(self) -> int:
        return min(len(self.images), self._limit or len(self.images))

    @cached_property
    def picture_size(self) -> tuple[int, int]:
        height, width = self.images.load([0]).images.shape[-2:]
        return height, width

    def features(self, network: Spec) -> Tensor:
        return self._once("features", network, lambda: {"features": self._extracted(network)})["features"]

    def logits(self, network: Spec) -> Tensor:
        net, device = self.networks(network), self._extraction.device
        require_classifier(net)
        with torch.no_grad(), full_precision(device):
            parts = self.features(network).split(_ROWS_AT_ONCE)
            return torch.cat([net.logits(part.to(device)).float().cpu() for part in parts])

    def moments(self, network: Spec) -> tuple[Tensor, Tensor]:
        if len(self) < 2:
            raise RobustokError(f"moments need at least two images, found {len(self)}", where=self.name)
        moments = self._once("moments", network, lambda: _moments(self.features(network)))
        return moments["mean"], moments["covariance"]

    def _once(self, what: str, network: Spec, compute: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """The result from this process or the cache, computed if neither has it."""
        key = (what, repr(network.table()))
        if key not in self._results:
            entry = self._cache_entry(what, self.networks(network))
            result: Mapping[str, Tensor] | None = entry.read()
            if result is None:
                result = compute()
                entry.keep(result)
            self._results[key] = result
        return self._results[key]

    def _cache_entry(self, what: str, net: Features) -> CacheEntry:
        return CacheEntry(
            self._cache,
            f"{what}_{net.name}_{len(self)}",
            lambda: ("float32", self.images.fingerprint, len(self), net.fingerprint),
        )

    @torch.no_grad()
    def _extracted(self, network: Spec) -> Tensor:
        net, how, world = self.networks(network), self._extraction, world_size()
        batches = evaluation_batches(
            self.images,
            batch_size=how.batch_size,
            rank=rank(),
            world=world,
            limit=self._limit,
            workers=how.workers,
        )
        ends = [len(self) * process // world for process in range(world + 1)]  # as evaluation_batches cuts
        own = torch.empty(ends[rank() + 1] - ends[rank()], net.width)
        done = 0
        with StepProgress(how.console, f"{self.name} in {net.name}", len(own)) as progress:
            for batch in batches:
                with full_precision(how.device):
                    features = net(batch.images.to(how.device))
                own[done : done + len(batch)] = features.float().cpu()
                done += len(batch)
                progress.update(done, {})
        return gather_shares(own, [after - before for before, after in pairwise(ends)])


def gather_shares(own: Tensor, sizes: Sequence[int]) -> Tensor:
    """(sum of sizes, ...) on the CPU: the rows of all processes, in rank order; each process has sizes[rank] rows.

    Every process holds the result once, and the device that exchanges it a few rows at a time.
    """
    if world_size() == 1:
        return own.cpu()
    device = communication_device()
    gathered = own.new_empty((sum(sizes), *own.shape[1:]), device="cpu")
    rows_at_once = max(1, _BYTES_AT_ONCE // max(1, gathered[:1].nbytes))
    for process, share in enumerate(gathered.split(list(sizes))):
        for first in range(0, len(share), rows_at_once):
            rows = share[first : first + rows_at_once]
            if process == rank():
                rows.copy_(own[first : first + rows_at_once])
            sent = rows.view(-1).view(torch.uint8).to(device)  # as bytes: not every backend knows every dtype
            dist.broadcast(sent, src=process)
            if process != rank():
                rows.copy_(sent.view(rows.dtype).view(rows.shape))
    return gathered


def _moments(features: Tensor) -> dict[str, Tensor]:
    """Mean and covariance (divided by n - 1) of features (n, F), in float64."""
    mean = torch.zeros(features.shape[1], dtype=torch.float64)
    for part in features.split(_ROWS_AT_ONCE):
        mean += part.double().sum(0) / len(features)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for part in features.split(_ROWS_AT_ONCE):
        centred = part.double() - mean
        covariance.addmm_(centred.T, centred)
    return {"mean": mean, "covariance": covariance / (len(features) - 1)}
