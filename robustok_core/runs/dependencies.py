"""The packages that robustok needs: which are installed, and what to say when one cannot be imported.

It imports nothing that could be missing itself.
"""

from __future__ import annotations

import importlib.metadata
import re
import traceback
from types import ModuleType, TracebackType

from robustok_core.errors import RunError

_OWN = "robustok"
#: Module names that are not the package's own.
_MODULES = {
    "attrs": ("attr", "attrs"),
    "pillow": ("PIL",),
    "pyyaml": ("yaml",),
    "scikit-image": ("skimage",),
    "scikit-learn": ("sklearn",),
}
#: Extras for those who work on robustok itself.
_FOR_WORK = re.compile(r"extra *== *['\"](dev|docs|test)['\"]")
_EXTRA = re.compile(r"extra *== *['\"](\w+)['\"]")


def requirements() -> dict[str, str]:
    """What robustok and its extras need, by the package's name: "torch>=2.6", or "robustok[view]"; {} if not known."""
    try:
        lines = importlib.metadata.requires(_OWN) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, str] = {}
    for line in sorted(lines, key=lambda line: (";" in line, line)):  # what is needed always comes first
        name = re.split(r"[^A-Za-z0-9_.-]", line)[0]
        if name != _OWN and not _FOR_WORK.search(line):
            extra = _EXTRA.search(line)
            found.setdefault(name, f"{_OWN}[{extra[1]}]" if extra else line.partition(";")[0].strip())
    return found


def installed_version(name: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def failed_import(error: BaseException) -> RunError | None:
    """The message for a package that robustok needs and that is missing, damaged or too old; None for other errors."""
    wanted = requirements()
    needed = {module: name for name in wanted for module in _modules_of(name)}
    name = needed.get(_missing(error) or "") or needed.get(_importing(error, needed) or "")
    if name is None:
        return None
    if (version := installed_version(name)) is None:
        return RunError(f"this needs the package {name}, which is not installed", hint=f"pip install '{wanted[name]}'")
    what = f"this needs the package {name}, and {name} {version} cannot be imported: {type(error).__name__}: {error}"
    return RunError(what, hint=f"remove it and install it again: pip install '{wanted[name]}'")


def _modules_of(name: str) -> tuple[str, ...]:
    return _MODULES.get(name.lower(), (name.replace("-", "_"),))


def _missing(error: BaseException) -> str | None:
    """The outermost package that an error says is missing or incomplete, where the import was ours."""
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType) and error.obj.__spec__ is not None:
        # what an unfinished removal leaves of a package: folders without code
        is_hollow = error.obj.__spec__.origin is None and error.obj.__spec__.submodule_search_locations is not None
        return error.obj.__name__.partition(".")[0] if is_hollow else None
    name = getattr(error, "name", None) if isinstance(error, ImportError) else None
    if name is None:
        return None
    package = str(name).partition(".")[0]
    return package if package == name or _last_package(error.__traceback__).startswith(_OWN) else None


def _importing(error: BaseException, needed: dict[str, str]) -> str | None:
    """The outermost of the needed packages that was being imported when the error happened."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if frame.f_code.co_name == "<module>" and package in needed:
            return package
    return None


def _last_package(of: TracebackType | None) -> str:
    names = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(of)]
    return names[-1].partition(".")[0] if names else ""
