"""Names the plugin in whose code an unexpected error happened."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

_GROUPS = ("robustok", "robustok.commands")
_OWN = "robustok"


def blamed(error: BaseException) -> str | None:
    """One line that names the plugin, component, method and line that an error of a third party's code comes from.

    Returns:
        None if no code of a plugin was running.
    """
    plugins = _third_party_packages()
    for frame, number in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in plugins or _is_foreign(frame):
            place = f"{frame.f_code.co_filename}, line {number}"
            owner = f"the plugin {plugins[package]}" if package in plugins else f"the module {package}"
            return f"this error happened in code of {owner}: {_component(frame)}{frame.f_code.co_name} ({place})"
    return _in_a_loader(error, plugins)


def _third_party_packages() -> dict[str, str]:
    """The distribution of each package that an installed plugin of somebody else provides."""
    points = [point for group in _GROUPS for point in importlib.metadata.entry_points(group=group)]
    dists = {point.value.partition(".")[0].partition(":")[0]: point.dist.name for point in points if point.dist}
    return {package: name for package, name in dists.items() if name != _OWN}


def _is_foreign(frame: FrameType) -> bool:
    """Whether a method of a component runs that is not ours, though no installed plugin registers it."""
    from robustok_core.kinds.boundary import Boundary

    module = str(frame.f_globals.get("__name__", ""))
    owner = frame.f_locals.get("self")
    return isinstance(owner, Boundary) and type(owner).__module__ == module and not module.startswith(_OWN)


def _component(frame: FrameType) -> str:
    """ "tokenizer 'patches', method " if a method of a component runs there."""
    from robustok_core.kinds.boundary import Boundary, kind_of, name_of

    owner = frame.f_locals.get("self")
    return f"{kind_of(owner)} {name_of(owner)!r}, method " if isinstance(owner, Boundary) else ""


def _in_a_loader(error: BaseException, plugins: Mapping[str, str]) -> str | None:
    """The plugin that an error in a loader process comes from, of which only the text has arrived."""
    text = str(error)
    if "DataLoader worker process" in text:
        for package, distribution in plugins.items():
            spec = importlib.util.find_spec(package)
            for folder in (spec.submodule_search_locations or ()) if spec else ():
                if f'"{Path(folder)}/' in text:
                    return f"this error happened in code of the plugin {distribution}, in a process that loads data"
    return None
