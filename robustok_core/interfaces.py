"""The kinds of component that a plugin can provide, one abstract class each.

Every component has a `Config`, a frozen keyword-only attrs class, and is built as
`Component(config, ...)`. A field that holds another component is declared with
`robustok_core.config.component("kind")` and arrives as a `Spec`, whose `build()` makes it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs
import torch
from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.draws import Draws
from robustok_core.errors import RobustokError
from robustok_core.latents import Keep, Latents, LatentSpace
from robustok_core.optimizer import OptimizerConfig
from robustok_core.smallest import smallest

if TYPE_CHECKING:
    from typing_extensions import Self

    from robustok_core.config import Spec
    from robustok_core.registry import Registry
    from robustok_core.stages import StageContext


class Component:
    """Anything that a recipe's table with `use` can build."""

    Config: ClassVar[type]


# --- data ---------------------------------------------------------------------------------------


@frozen(kw_only=True, eq=False)
class Batch:
    """Some rows of a split.

    Attributes:
        labels: (B,) int64 in [0, num_classes).
        indices: (B,) int64, their places in the split.
    """

    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""
        return self._map(lambda value: value.to(device))

    def pin_memory(self) -> Self:
        """The same batch in page-locked memory."""
        return self._map(lambda value: value.pin_memory())

    def _map(self, change: Callable[[Any], Any]) -> Self:
        held = attrs.asdict(self, recurse=False)
        return attrs.evolve(self, **{name: change(value) for name, value in held.items()})


@frozen(kw_only=True, eq=False)
class ImageBatch(Batch):
    """Images of a split: `images` (B, 3, H, W) float32 in [-1, 1]; grey ones are repeated to 3 channels."""

    images: Tensor


@frozen(kw_only=True, eq=False)
class LatentBatch(Batch):
    """What a generator is trained on: `latents` with codes (B, N), or vectors (B, N, D) in a continuous space."""

    latents: Latents


class Rows(ABC):
    """What training reads by index. Must be picklable: data loader workers hold a copy."""

    @property
    @abstractmethod
    def labels(self) -> Tensor:
        """(n,) int64 in [0, num_classes)."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the content and of the preparation (crop, size): the same rows, the same hash."""

    @abstractmethod
    def load(self, indices: Sequence[int], draws: Draws | None = None) -> Batch:
        """The rows at `indices`; `draws` (one row each) drives augmentation, None means none."""

    def __len__(self) -> int:
        return len(self.labels)


class Images(Rows):
    """The images of one split of a data set."""

    @abstractmethod
    def load(self, indices: Sequence[int], draws: Draws | None = None) -> ImageBatch:
        """The images at `indices`."""


class Dataset(Component, ABC):
    """Images with labels, in a training and a validation split.

    The constructor `Dataset(config)` opens and checks the source, and raises RobustokError where a
    file is missing, a folder is empty or a class holds fewer than 2 images.
    """

    image_size: int
    num_classes: int
    class_names: Sequence[str]
    train: Images
    validation: Images


# --- tokenizers ---------------------------------------------------------------------------------


#: Scores computed at once by `distance_scores`: 64 MiB in float32.
_SCORES_AT_ONCE = 2**24


@torch.no_grad()
def distance_scores(z: Tensor, codebook: Tensor) -> Iterator[Tensor]:
    """(rows, K) float32 |e|^2 - 2 z e, which orders codewords e (K, D) by their L2 distance to z.

    The rows of z (M, D) come in parts, so that M x K scores never exist at once, and in float32
    whatever the autocast: in bfloat16 many codewords tie.
    """
    codebook = codebook.float()
    squares = codebook.square().sum(1)
    for part in z.float().split(max(1, _SCORES_AT_ONCE // len(codebook))):
        with torch.autocast(z.device.type, enabled=False):
            scores = torch.addmm(squares, part, codebook.T, alpha=-2.0)
        yield scores


class Quantizer(Component, nn.Module, ABC):
    """Maps vectors to codewords. Built as `Quantizer(config)`.

    Attributes:
        codebook_size: K.
        width: D.
    """

    codebook_size: int
    width: int

    @abstractmethod
    def quantize(self, z: Tensor) -> Latents:
        """Quantizes z (B, N, D), the encoder's output.

        Returns latents with `vectors` (codewords, with the straight-through gradient to z), `codes`,
        `features` (z, in the codebook's own scale: bounded where the quantizer bounds it, so that
        `nearest` reads it), and, in training mode only, `losses` (weighted scalars, e.g. "codebook",
        "commitment").
        """

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """(..., D) the vectors that the decoder reads for codes (...) int64."""

    @property
    @abstractmethod
    def codebook(self) -> Tensor:
        """(K, D) the codewords as the decoder reads them, in the codebook's own metric (L2).

        Raises RobustokError where K is too large to list.
        """

    def after_step(self, draws: Draws) -> None:
        """Called once after each optimiser step: codebook averages, restart of dead codes."""

    def nearest(self, z: Tensor, count: int) -> Tensor:
        """(M, count) int64, the codes nearest to each row of z (M, D) in the codebook's metric, nearest first.

        Of codewords at the same distance the lower code comes first.
        """
        return torch.cat([smallest(scores, count) for scores in distance_scores(z, self.codebook)])


class Tokenizer(Component, nn.Module, ABC):
    """Images to latents and back. Built as `Tokenizer(config)`. It never sees a perturbation.

    Attributes:
        space: its latent space.
        image_size: H = W of the images it reads and draws.
        quantizer: the quantizer of a discrete tokenizer, or None.
        training_only: attributes that change neither latents nor images: what hangs on latents in training alone.
    """

    training_only: ClassVar[tuple[str, ...]] = ()
    space: LatentSpace
    image_size: int
    quantizer: Quantizer | None  # set by every tokenizer: a default here would hide the submodule of that name

    @abstractmethod
    def encode(self, images: Tensor) -> Latents:
        """The latents of images (B, 3, H, W) in [-1, 1], differentiable (straight-through)."""

    @abstractmethod
    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Images (B, 3, H, W), about [-1, 1] but not clamped, from vectors (B, N, D)."""

    @property
    @abstractmethod
    def decoder(self) -> nn.ModuleList:
        """All modules behind the quantizer: what post-training trains; the rest it freezes."""

    @property
    @abstractmethod
    def last_layer(self) -> nn.Parameter:
        """The decoder's last weight, at which adaptive loss weights compare gradients."""

    def decode(self, latents: Latents) -> Tensor:
        """Images (B, 3, H, W), about [-1, 1] but not clamped, from latents with vectors or codes."""
        return self.decode_vectors(self.vectors_of(latents))

    def vectors_of(self, latents: Latents) -> Tensor:
        """(B, N, D): the latents' vectors, looked up where only codes are known."""
        if latents.vectors is not None:
            return latents.vectors
        if self.quantizer is None or latents.codes is None:
            raise ValueError("a continuous tokenizer decodes vectors only")
        return self.quantizer.lookup(latents.codes)


class Perturbation(Component, ABC):
    """Changes latents in training, so that the decoder learns to read wrong ones. `Perturbation(config)`."""

    @abstractmethod
    def perturb(
        self, latents: Latents, quantizer: Quantizer | None, *, draws: Draws, progress: float
    ) -> tuple[Latents, Tensor]:
        """Perturbs a batch.

        Args:
            latents: clean latents; the gradient must go on to `latents.vectors`.
            quantizer: the tokenizer's, None in a continuous space.
            draws: the batch's random numbers; a choice among images is made over `draws.total`.
            progress: share of the training that is done, in [0, 1]; drives the annealing.

        Returns:
            The perturbed latents, and a mask (B, N) bool of the tokens that were drawn anew.
        """

    def check(self, space: LatentSpace, batch_size: int | None = None) -> None:
        """Raises RobustokError where this perturbation does not fit the latent space or the global batch."""


# --- training -----------------------------------------------------------------------------------


@frozen(kw_only=True, eq=False)
class Reconstruction:
    """One micro-batch on its way through a tokenizer's training, what a loss may look at.

    Attributes:
        batch: the real images and labels.
        latents: the clean latents, before the perturbation.
        decoded: the latents that the decoder read (perturbed ones where a perturbation is on).
        images: (B, 3, H, W) the decoder's pictures, or None while a loss that needs only latents runs.
        tokenizer: the tokenizer that made them.
        draws: random numbers of this micro-batch, one row an image.
        progress: share of the training that is done, in [0, 1].
        image_loss: weighted sum of the image terms that came before this one (for adaptive weights).
    """

    batch: ImageBatch
    latents: Latents
    decoded: Latents
    images: Tensor
    tokenizer: Tokenizer
    draws: Draws
    progress: float
    image_loss: Tensor | None = None


class Loss(Component, nn.Module, ABC):
    """One term of a tokenizer's training loss. Built as `Loss(config)`; `config.weight` scales it.

    Attributes:
        compares_images: True where the term measures reconstruction against image; such terms are
            computed first, and their weighted sum is `Reconstruction.image_loss` for the others.
        opponent: None, or what is trained against this term.
    """

    compares_images: ClassVar[bool] = False
    config: Any  # an instance of Config, which has a `weight`
    opponent: Opponent | None

    def __init__(self) -> None:
        super().__init__()
        self.opponent = None  # on the instance: a class attribute would hide the submodule of that name

    def prepare(self, tokenizer: Tokenizer) -> None:
        """Called once, before training and before a checkpoint is loaded: may create parameters that fit."""

    def own_parameters(self) -> list[nn.Parameter]:
        """What the tokenizer's optimiser trains along: all that takes a gradient, less the opponent's.

        Their gradients must be averaged over processes, as the tokenizer's are.
        """
        theirs = set() if self.opponent is None else {id(parameter) for parameter in self.opponent.parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in theirs]

    @abstractmethod
    def forward(self, step: Reconstruction) -> Tensor:
        """The unweighted term, a scalar."""

    def logs(self) -> Mapping[str, float | Tensor]:
        """Further numbers of the last forward worth a line in the metrics file.

        Scalar tensors where they are computed on a device: reading a number would wait for it.
        """
        return {}


class Opponent(nn.Module, ABC):
    """A network trained against a loss term, with an optimiser of its own (a discriminator).

    Attributes:
        optimizer: how it is trained.
        start: share of the training at which its own training begins.
    """

    optimizer: OptimizerConfig
    start: float = 0.0

    @abstractmethod
    def forward(self, step: Reconstruction) -> Tensor:
        """Its own loss, a scalar; `step.images` is detached."""

    def active(self, progress: float) -> bool:
        """Whether it is trained at this share of the training."""
        return progress >= self.start

    def logs(self) -> Mapping[str, float | Tensor]:
        """Further numbers of the last forward, as `Loss.logs`."""
        return {}


class Features(Component, nn.Module, ABC):
    """A frozen network that sees. Built as `Features(config)`; always in eval mode, without gradients
    of its own weights but differentiable in the images.

    Attributes:
        name: short and exact, for metric keys ("inception", "efficientnet_lite0").
        width: F, length of the pooled feature vector.
        num_logits: classes of its head, or 0 where it has none.
    """

    name: str
    width: int
    num_logits: int = 0

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """(B, F) pooled features of images (B, 3, H, W) in [-1, 1], any H and W: resizing is done inside."""

    @abstractmethod
    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps (B, C, h, w), shallow to deep."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the weights and of the preparation of the images."""

    def logits(self, pooled: Tensor) -> Tensor:
        """(B, num_logits) class scores of pooled features (B, F)."""
        raise RobustokError(f"features {self.name!r} have no classifier head")

    def train(self, mode: bool = True) -> Features:
        """Stays in eval mode: a frozen judge must not drift."""
        return super().train(False)


# --- generators ---------------------------------------------------------------------------------

_finite = validators.lt(math.inf)


@frozen(kw_only=True)
class Guidance:
    """Classifier-free guidance (Ho & Salimans 2022): unconditional + w (conditional - unconditional).

    The weight w changes along the sampling, from s = 0 at its beginning to 1 at its end (tokens drawn, or
    time integrated): "constant" g; "linear" 1 + (g - 1) s^p; "cosine" 1 + (g - 1) (1 - cos(pi s^p)) / 2, which
    with a power p other than 1 is RAR's. Outside of [start, stop) there is no guidance (w = 1).
    """

    scale: float = field(
        default=1.0, validator=[validators.ge(0.0), _finite], metadata={"doc": "g, the weight reached; 1 is none"}
    )
    schedule: Literal["constant", "linear", "cosine"] = field(
        default="constant", metadata={"doc": "how the weight grows along the sampling"}
    )
    power: float = field(
        default=1.0, validator=[validators.gt(0.0), _finite], metadata={"doc": "exponent of s: above 1 guides later"}
    )
    start: float = field(
        default=0.0,
        validator=[validators.ge(0.0), validators.le(1.0)],
        metadata={"doc": "share of the sampling at which guidance begins"},
    )
    stop: float = field(
        default=1.0,
        validator=[validators.ge(0.0), validators.le(1.0)],
        metadata={"doc": "share of the sampling at which guidance ends"},
    )

    @property
    def active(self) -> bool:
        """Whether there is any guidance."""
        return self.scale != 1.0 and self.start < self.stop

    def weight(self, done: float) -> float:
        """The weight when a share `done` in [0, 1) of the sampling is done."""
        if not self.start <= done < self.stop:
            return 1.0
        grown = done**self.power
        shares = {"constant": 1.0, "linear": grown, "cosine": 0.5 - 0.5 * math.cos(math.pi * grown)}
        return 1.0 + (self.scale - 1.0) * shares[self.schedule]


class Generator(Component, nn.Module, ABC):
    """A class-conditional model of latents. Built as `Generator(config, space, num_classes)`.

    Attributes:
        Sampling: an attrs class, the options of its sampler with their defaults (temperature, steps).
        space: the latent space that it was built for. num_classes: labels lie in [0, num_classes).
        knows_null_class: whether labels were dropped in training, which guidance needs.
        not_decayed: names of parameters that weight decay leaves alone, besides vectors and scalars.
    """

    Sampling: ClassVar[type]
    space: LatentSpace
    num_classes: int
    knows_null_class: bool
    not_decayed: Collection[str] = ()

    def observe(self, mean: Tensor, std: Tensor) -> None:
        """Called once before training in a continuous space, with the statistics (D,) of the training latents."""

    @abstractmethod
    def loss(self, latents: Latents, labels: Tensor, *, draws: Draws, progress: float) -> Mapping[str, Tensor]:
        """Named training losses, scalars, to be summed."""

    @abstractmethod
    def sample(
        self, labels: Tensor, draws: Draws, *, guidance: Guidance, keep: Keep | None = None, sampling: Any = None
    ) -> Latents:
        """Draws latents; sample i depends on its label and row i of the draws only.

        Args:
            labels: (B,) int64.
            draws: one row a sample.
            guidance: `check_guidance` has accepted it.
            keep: preserve a share sigma of these real latents.
            sampling: an instance of `Sampling`; its defaults where None.
        """

    def check_guidance(self, guidance: Guidance) -> None:
        """Raises RobustokError where guidance is asked of a generator that never saw the null class."""
        if guidance.active and not self.knows_null_class:
            raise RobustokError(
                f"guidance of scale {guidance.scale:g} needs a generator that was trained with label dropout",
                hint="set guidance.scale = 1, or train with label_dropout above 0",
            )


class PostTrainer(Component, ABC):
    """Adapts a trained tokenizer to what a generator makes (paper section 4). Built as `PostTrainer(config)`.

    It says what a pair is and what is trained; the stage `post_train` keeps the pairs, trains and measures.
    """

    @abstractmethod
    def pair(
        self, tokenizer: Tokenizer, generator: Generator, real: LatentBatch, *, draws: Draws, sigma: float
    ) -> Latents:
        """The latents from which the tokenizer is to draw the real images again: codes, or vectors.

        Args:
            tokenizer: as it came from main training.
            generator: trained on its latents.
            real: latents of the real images, which the generator preserves to a share sigma.
            draws: one row an image.
            sigma: in [0, 1].
        """

    @abstractmethod
    def trained(self, tokenizer: Tokenizer) -> Sequence[nn.Module]:
        """The parts of the tokenizer that are trained; the stage freezes the rest, buffers included."""


# --- measuring ----------------------------------------------------------------------------------


@frozen(kw_only=True, eq=False)
class Evaluation:
    """One batch of a tokenizer's evaluation.

    Attributes:
        batch: real images, without augmentation.
        latents: the tokenizer's latents of them.
        images: (B, 3, H, W) reconstructions as a picture file would hold them: clamped to [-1, 1]
            and rounded to 8 bits.
        tokenizer: the tokenizer.
        draws: one row an image of the split: an image's draws are the same whatever the batch or the limit.
        real: pooled features of the real images by Features object, filled on demand.
    """

    batch: ImageBatch
    latents: Latents
    images: Tensor
    tokenizer: Tokenizer
    draws: Draws
    _real: dict[int, Tensor] = field(factory=dict, alias="real")

    def real_features(self, features: Features) -> Tensor:
        """(B, F) pooled features of the real images, computed once however many metrics ask."""
        key = id(features)
        if key not in self._real:
            self._real[key] = features(self.batch.images)
        return self._real[key]


@frozen(kw_only=True)
class EvaluationContext:
    """What a metric may ask before a pass begins.

    Attributes:
        tokenizer: the tokenizer under test.
        source: fingerprint of the real images of the pass.
        num_images: how many images the pass holds, over all processes.
        cache: folder for reference statistics, or None.
        share_features: returns one Features object for equal configurations, so that metrics share it.
        device: where the pass runs.
    """

    tokenizer: Tokenizer
    source: str
    num_images: int
    cache: Path | None
    share_features: Any
    device: torch.device


class Metric(Component, ABC):
    """A number, or a few, measured over a pass. Built as `Metric(config)`.

    A metric's `state` holds sums: adding the states of all processes gives the state of the whole.
    """

    higher_is_better: ClassVar[Mapping[str, bool]] = {}

    def check(self, space: LatentSpace) -> None:
        """Raises RobustokError where it does not fit tokenizers of this latent space; called before anything runs."""

    @abstractmethod
    def start(self, context: EvaluationContext) -> None:
        """Begins a pass: builds what it needs and clears the state."""

    @abstractmethod
    def update(self, step: Evaluation) -> None:
        """Takes in one batch."""

    @abstractmethod
    def state(self) -> Mapping[str, Tensor]:
        """The additive state, by name; `load_state` takes it back after it was summed."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replaces the state."""

    @abstractmethod
    def compute(self) -> Mapping[str, float]:
        """The results by name."""


class Population(ABC):
    """A set of images as a feature network sees it: a generator's samples, or the real images they are judged by.

    Attributes:
        name: for messages: a file, a folder, "validation images".
    """

    name: str

    @abstractmethod
    def __len__(self) -> int:
        """How many images it holds; 0 where only statistics of them are known."""

    @abstractmethod
    def features(self, network: Spec) -> Tensor:
        """(n, F) float32 pooled features on the CPU, in the order of the images, computed once.

        Raises:
            RobustokError: where only statistics are known.
        """

    @abstractmethod
    def logits(self, network: Spec) -> Tensor:
        """(n, num_logits) float32 class scores on the CPU; errors as `features`."""

    @abstractmethod
    def moments(self, network: Spec) -> tuple[Tensor, Tensor]:
        """Mean (F,) and covariance (F, F, divided by n - 1) of the features, float64."""


class SampleMetric(Component, ABC):
    """A number, or a few, that compare a generator's samples with real images. Built as `SampleMetric(config)`."""

    higher_is_better: ClassVar[Mapping[str, bool]] = {}

    def check(self, num_samples: int | None, num_reference: int | None) -> None:
        """Raises RobustokError where it cannot be computed of so many images; called before anything runs.

        A number is None where it is not known, and 0 where only statistics of the reference are.
        """

    @abstractmethod
    def compute(self, samples: Population, reference: Population) -> Mapping[str, float]:
        """The results by name; `NAME_num_images` stands beside what depends on the number of samples.

        Raises:
            RobustokError: where it cannot be computed for these populations.
        """


# --- runs ---------------------------------------------------------------------------------------


class Stage(Component, ABC):
    """One step of a run. Built as `Stage(config)`.

    Attributes:
        uses: top-level tables that it cannot do without ("data", "tokenizer", ...).
        may_use: tables that shape the result where the recipe has them ("perturbation").
        needs: artifacts it reads. makes: artifacts it leaves.
    """

    uses: ClassVar[tuple[str, ...]] = ()
    may_use: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    makes: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def run(self, context: StageContext) -> Mapping[str, float]:
        """Does the work and returns results by name."""

    def check(self, context: StageContext) -> None:
        """Raises RobustokError where the parts do not fit; called for all stages before any runs."""


class Importer(Component, ABC):
    """Turns a published checkpoint into one of our components. Built as `Importer(config)`."""

    makes: ClassVar[Literal["tokenizer", "generator"]]

    @abstractmethod
    def load(self, path: Path, registry: Registry) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        """Reads a file; the component is built through the registry.

        Returns:
            The component's recipe table (with `use`), the component with its weights, and a report:
            which keys were dropped and why.
        """

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The component's weights under the published names.

        Raises:
            RobustokError: where the published format has no place for this component.
        """
        raise RobustokError(f"the importer {type(self).__name__} cannot export")


KINDS: Mapping[str, type] = {
    "dataset": Dataset,
    "tokenizer": Tokenizer,
    "quantizer": Quantizer,
    "perturbation": Perturbation,
    "loss": Loss,
    "features": Features,
    "metric": Metric,
    "sample_metric": SampleMetric,
    "generator": Generator,
    "post_trainer": PostTrainer,
    "stage": Stage,
    "importer": Importer,
}
