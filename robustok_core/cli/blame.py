"""Names the plugin in whose code an unexpected error happened."""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from robustok_core.values.distributions import is_ours, owner_of, package_of, plugin_packages


def blamed(error: BaseException) -> str | None:
    """One line that names the plugin, component, method and line that an error of a third party's code comes from.

    Returns:
        None if no code of a plugin was running.
    """
    plugins = plugin_packages()
    for frame, number in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = str(frame.f_globals.get("__name__", ""))
        if package_of(module) in plugins or _is_foreign(frame):
            place = f"{frame.f_code.co_filename}, line {number}"
            method = f"{_component(frame)}{frame.f_code.co_name}"
            return f"this error happened in code of {owner_of(module)}: {method} ({place})"
    return _in_a_loader(error, plugins)


def _is_foreign(frame: FrameType) -> bool:
    """Whether a method of a component runs that is not ours, though no installed plugin registers it."""
    from robustok_core.kinds.boundary import Boundary

    module = str(frame.f_globals.get("__name__", ""))
    owner = frame.f_locals.get("self")
    return isinstance(owner, Boundary) and type(owner).__module__ == module and not is_ours(module)


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
