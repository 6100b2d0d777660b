"""What every kind of component has in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from robustok_core.values.spec import Spec


class Component:
    """Anything that a recipe's table with `use` can build."""

    Config: ClassVar[type]


class Builder(Protocol):
    """What a component sees of the registry: it can have other components built."""

    def spec(self, kind: str, table: Mapping[str, Any]) -> Spec:
        """The component that a recipe table describes, checked but not built."""

    def build(self, kind: str, table: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The component that a recipe table describes."""
