"""What every kind of component has in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from robustok_core.values.spec import Spec


class Component:
    """Anything that a recipe table with `use` can build."""

    Config: ClassVar[type]


class Builder(Protocol):
    """The view of the registry that components get: it builds other components."""

    def spec(self, kind: str, table: Mapping[str, Any]) -> Spec:
        """Checks the component that a recipe table describes, without building it."""

    def build(self, kind: str, table: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Builds the component that a recipe table describes."""
