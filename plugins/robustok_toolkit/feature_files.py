"""The features of files and folders: of their images, of published statistics, or of both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.features import Features
from robustok_core.values.spec import Spec
from robustok_toolkit.array_files import array_names, find_array
from robustok_toolkit.image_features import ExtractedFeatures, Extraction, KnownNetworkFeatures, Networks
from robustok_toolkit.image_files import open_images, reference_moments
from robustok_toolkit.some_images import SomeImages
from robustok_training.batches import epoch_order

#: What to do about `limit_problem`.
LIMIT_HINT = "leave the limit out, or use a reference without mu and sigma"

#: The networks whose moments ADM's references hold.
_POOLED, _SPATIAL = "inception", "inception_spatial"
#: The names of the means in such a file.
_MEANS = {_POOLED: "mu", _SPATIAL: "mu_s"}


def require_statistics(network: Features, held: Mapping[str, int], where: str) -> None:
    """Raises RobustokError if a reference with moments of these widths, by network, has none of this network."""
    width = held.get(network.name)
    if width == network.width:
        return
    hint = "use the features inception, or a reference that has only images"
    message = f"mu and sigma are of the published Inception's features, not of {network.name!r}"
    if network.name == _SPATIAL:
        message = "this reference has mu and sigma, but not those of spatial features, mu_s and sigma_s"
    if width is not None:
        message = f"{_MEANS[network.name]} has {width} numbers, but {network.name} has {network.width} features"
        hint = "use statistics of the published Inception, or a reference that has only images"
    raise RobustokError(message, where=where, hint=hint)


def statistics_in(path: Path) -> dict[str, int] | None:
    """The widths of the networks whose moments a reference holds, by name; None without any, or if it is absent."""
    if not path.is_file() or "mu" not in (names := array_names(path)):
        return None
    return {network: math.prod(find_array(path, mean).shape) for network, mean in _MEANS.items() if mean in names}


def require_no_statistics(path: Path) -> None:
    """Raises RobustokError if a file that is to be a further set of real images holds statistics."""
    if statistics_in(path) is not None:
        what = "mu and sigma are of an unknown number of images, so this is no further set of real images"
        raise RobustokError(what, where=str(path), hint="name images without statistics")


def limit_problem(limit: int) -> str:
    """What is wrong with a limit where a metric takes the moments of a file."""
    return f"mu and sigma of this file are of all its images, so they cannot be limited to {limit}"


class PublishedFeatures(KnownNetworkFeatures):
    """A published reference: mu and sigma of the Inception features of many images, and optionally some images.

    `moments` are mu and sigma, and exist only for the published Inception; `features` are of the images. The two
    are meant to differ: ADM's reference has the statistics of all of ImageNet, but only 10,000 of its images.

    Args:
        mean: mu (F,) float64. covariance: sigma (F, F) float64.
        images: None if there are only statistics.
        name: for messages.
        networks: returns the network of a configuration.
        spatial: mu and sigma of the spatial features, if the reference has them.
        limit: the number of images that was asked for; the statistics are of all, so with a limit there are no moments.
    """

    def __init__(
        self,
        mean: Tensor,
        covariance: Tensor,
        images: ExtractedFeatures | None,
        *,
        name: str,
        networks: Networks,
        spatial: tuple[Tensor, Tensor] | None = None,
        limit: int | None = None,
    ) -> None:
        self.name, self.networks = name, networks
        self._images, self._limit = images, limit
        self._moments = {_POOLED: (mean, covariance)}
        if spatial is not None:
            self._moments[_SPATIAL] = spatial

    @property
    def statistics(self) -> dict[str, int]:
        return {network: len(mean) for network, (mean, _) in self._moments.items()}

    def __len__(self) -> int:
        return 0 if self._images is None else len(self._images)

    @property
    def num_in_moments(self) -> int:
        return 0

    @property
    def picture_size(self) -> tuple[int, int] | None:
        return None if self._images is None else self._images.picture_size

    def features(self, network: Spec) -> Tensor:
        return self._require_images().features(network)

    def logits(self, network: Spec) -> Tensor:
        return self._require_images().logits(network)

    def moments(self, network: Spec) -> tuple[Tensor, Tensor]:
        net = self.networks(network)
        require_statistics(net, self.statistics, self.name)
        if self._limit is not None:
            raise RobustokError(limit_problem(self._limit), where=self.name, hint=LIMIT_HINT)
        return self._moments[net.name]

    def _require_images(self) -> ExtractedFeatures:
        if self._images is None:
            hint = "precision, recall and the kernel distance need a reference with images"
            raise RobustokError("this reference holds statistics but no images", where=self.name, hint=hint)
        return self._images


def open_features(
    path: Path, extraction: Extraction, *, cache: Path | None = None, limit: int | None = None
) -> ExtractedFeatures | PublishedFeatures:
    """The features of a folder of images, a sample file, or a reference file with mu and sigma.

    Args:
        path: the folder or file, named in messages.
        limit: use only this many images: of each class as many, or, where the file tells no classes, as in a folder,
            drawn at random, always the same ones.
        extraction, cache: as of `ExtractedFeatures`.

    Raises:
        RobustokError: the path is missing or damaged, or holds neither images nor statistics.
    """
    moments = None if path.is_dir() else reference_moments(path)
    images = None
    if moments is None or "arr_0" in array_names(path):
        chosen = _chosen(open_images(path), limit)
        images = ExtractedFeatures(chosen, extraction, name=str(path), cache=cache, limit=limit)
    if moments is None:
        assert images is not None
        return images
    networks, spatial = extraction.networks, reference_moments(path, "_s")
    return PublishedFeatures(*moments, images, name=str(path), networks=networks, spatial=spatial, limit=limit)


def _chosen(images: Images, limit: int | None) -> Images:
    """The images that a limit leaves where their classes are not known: the first ones may be of a few classes."""
    if limit is None or limit >= len(images) or len(images.labels.unique()) > 1:
        return images
    return SomeImages(images, epoch_order(len(images), seed=0, epoch=0)[:limit].sort().values)
