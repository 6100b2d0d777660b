"""The tables of a study file, apart from its arms."""

from __future__ import annotations

from typing import Any, Literal

from attrs import field, frozen, validators

_SEEDS = {"doc": "seeds of every arm: arms are compared seed by seed", "largest": 2**63 - 1}


def _seeds_valid(_: object, __: object, seeds: Any) -> None:
    if seeds is not None and (not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds)):
        raise ValueError("must be one or more different numbers from 0 on")


@frozen(kw_only=True)
class StudyConfig:
    """The top level of a study file, except for its arms and claims."""

    name: str = field(metadata={"doc": "name of the study's folder; default: that of the file"})
    recipe: str = field(metadata={"doc": "the recipe that the arms change: a file, or the name of a bundled one"})
    seeds: list[int] = field(validator=_seeds_valid, metadata=_SEEDS)
    base: str | None = field(
        default=None, metadata={"doc": "the arm that others are compared with; default: the first"}
    )
    threads: int | None = field(
        default=None,
        validator=validators.optional(validators.ge(1)),
        metadata={"doc": "threads of each job; default: the cores, divided among the jobs"},
    )
    metrics: dict[str, str] = field(
        factory=dict, metadata={"doc": "what the table shows, by label: a result, or a difference or ratio of two"}
    )
    set: dict[str, Any] = field(factory=dict, metadata={"doc": "keys of the recipe that are set in all arms"})


@frozen(kw_only=True)
class Pair:
    """Two arms whose difference is taken, seed by seed."""

    arm: str = field(metadata={"doc": "the arm"})
    base: str = field(metadata={"doc": "the arm that is subtracted from it"})


@frozen(kw_only=True)
class ClaimConfig:
    """One [[claim]]."""

    text: str = field(metadata={"doc": "the claim in words"})
    metric: str = field(metadata={"doc": "a label of [metrics], a result, or a difference or ratio of two"})
    arm: str = field(metadata={"doc": "the arm that it is about"})
    base: str | None = field(
        default=None, metadata={"doc": "the arm it is compared with, seed by seed; default: none, the metric itself"}
    )
    beyond: Pair | None = field(
        default=None,
        metadata={"doc": "two more arms, whose difference is subtracted: beyond = { arm = ..., base = ... }"},
    )
    direction: Literal["lower", "higher"] = field(metadata={"doc": "where the metric or difference lies"})
    than: float = field(default=0.0, metadata={"doc": "what the metric or difference is compared with"})

    def __attrs_post_init__(self) -> None:
        if self.beyond is not None and self.base is None:
            raise ValueError("beyond: differences are compared with differences; name a base, too")

    @property
    def arms(self) -> list[str]:
        """All arms that it is about: its own, its base, and the two of `beyond`."""
        own = [self.arm] + ([] if self.base is None else [self.base])
        return own + ([] if self.beyond is None else [self.beyond.arm, self.beyond.base])


@frozen(kw_only=True)
class CorrelationConfig:
    """One [[correlation]]: whether a metric predicts another one over the arms."""

    text: str = field(metadata={"doc": "the claim in words"})
    metric: str = field(metadata={"doc": "a label of [metrics], a result, or a difference or ratio of two"})
    predicts: str = field(metadata={"doc": "the metric that it should rise with, named alike"})
    better_than: str | None = field(
        default=None, metadata={"doc": "a rival that should predict it worse; default: none, any rise together counts"}
    )
    coefficient: Literal["Pearson", "Spearman"] = field(
        default="Spearman", metadata={"doc": "Spearman, of the arms' order, or Pearson, of a straight line"}
    )


@frozen(kw_only=True)
class QuickConfig:
    """The [quick] table: what `--quick` changes."""

    seeds: list[int] | None = field(default=None, validator=_seeds_valid, metadata=_SEEDS)
    set: dict[str, Any] = field(factory=dict, metadata={"doc": "keys of the recipe that are set last in all arms"})
