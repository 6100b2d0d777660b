"""Objects that training libraries leave in checkpoints beside the weights: stand-ins take their place.

Checkpoints of PyTorch Lightning hold the classes of its callbacks, or the options of the training as OmegaConf's. They
are neither built nor needed: torch's restricted unpickler puts a stand-in of ours wherever a file names one, so that no
code of the file or of these libraries runs, and the libraries need not be installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

#: Modules whose objects are replaced.
_LIBRARIES = ("pytorch_lightning", "lightning", "lightning_fabric", "omegaconf", "pathlib", "typing", "collections")
#: Types that OmegaConf names.
_TYPES = frozenset(f"builtins.{name}" for name in ("bool", "bytes", "dict", "float", "int", "list", "str", "tuple"))


class StandIn:
    """Takes the place of any object: accepts all arguments and states, and keeps none."""

    def __new__(cls, *_: Any, **__: Any) -> StandIn:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Keeps nothing."""


def _dictionary(*_: Any) -> dict[Any, Any]:
    return {}


def _list(*_: Any) -> list[Any]:
    return []


#: Containers that a file fills after they are built, and what is filled instead.
_CONTAINERS: Mapping[str, Callable[..., Any]] = {"collections.defaultdict": _dictionary, "collections.deque": _list}


def stand_ins(file: Path) -> list[tuple[Callable[..., Any], str]]:
    """What `torch.serialization.safe_globals` takes so that a torch file can be read without these libraries."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except Exception:  # an older format, or damaged: reading it says so
        return []
    known = [name for name in names if name in _TYPES or name.partition(".")[0] in _LIBRARIES]
    return [(_CONTAINERS.get(name, StandIn), name) for name in known]
