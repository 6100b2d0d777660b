"""Whose code a module is: the installed distribution that it belongs to."""

from __future__ import annotations

import importlib.metadata

_GROUPS = ("robustok", "robustok.commands")
#: The distribution of robustok itself.
OWN = "robustok"
#: Our packages that register no component or command.
_LIBRARIES = {
    "robustok",
    "robustok_core",
    "robustok_blocks",
    "robustok_study",
    "robustok_toolkit",
    "robustok_training",
}


def package_of(module: str) -> str:
    """The outermost package of a module."""
    return module.partition(".")[0]


def plugin_packages() -> dict[str, str]:
    """The distribution of each package that an installed plugin of somebody else provides."""
    return {package: name for package, name in _distributions().items() if name != OWN}


def is_ours(module: str) -> bool:
    """Whether a module belongs to robustok itself; somebody else's may be called robustok_something."""
    package = package_of(module)
    return package in _LIBRARIES or _distributions().get(package) == OWN


def owner_of(module: str) -> str:
    """The installed plugin that a module belongs to, or the module itself: "the plugin robustok-example"."""
    distribution = _distributions().get(package_of(module))
    return f"the module {module}" if distribution is None else f"the plugin {distribution}"


def _distributions() -> dict[str, str]:
    """The distribution of each package that has an entry point of ours."""
    points = [point for group in _GROUPS for point in importlib.metadata.entry_points(group=group)]
    return {package_of(point.module): point.dist.name for point in points if point.dist is not None}
