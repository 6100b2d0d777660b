"""`robustok env`. What it reports may be what is broken, so each fact is found by itself."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from robustok_core.values.machine_memory import machine_memory, usable_memory
from robustok_core.values.terminal import echo, echo_json

#: The folders of a path, which say whose machine it is; its last part may stay.
_FOLDERS = re.compile(r"(?<![\w.:/])(?:~|[A-Za-z]:)?[\\/](?:[^\\/\s'\":,;()]+[\\/])+")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def env(as_json: bool) -> None:
    """Print what a bug report needs: versions, plugins, processor, memory and precision.

    It has no paths, names of users or of machines, so it can be pasted as it is. It also works where a package that
    robustok needs is missing or damaged, and says so.
    """
    found = {name: _found(fact) for name, fact in _FACTS.items()}
    if as_json:
        echo_json(found)
        return
    rows = [(name, _text(value)) for name, value in found.items()]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        for number, line in enumerate(text.split("\n")):
            echo(f"{'' if number else name:<{width}}  {line}".rstrip())


def _found(fact: Callable[[], Any]) -> Any:
    try:
        return fact()
    except Exception as error:  # whatever is broken is what the report is about
        return f"cannot be found: {_reason(error)}"


def _reason(error: BaseException) -> str:
    """The first line of an error."""
    return _without_folders(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


def _without_folders(text: str) -> str:
    """A text in which paths are names of files: their folders say whose machine it is."""
    own = (sys.prefix, os.path.expanduser("~"))  # these may have spaces  # noqa: PTH111 (never fails)
    for folder in own:
        text = text.replace(f"{folder}{os.sep}", "")
    return _FOLDERS.sub("", text)


def _robustok() -> str:
    from robustok_core import __version__
    from robustok_core.runs.source_commit import git_commit

    return __version__ + (f", commit {commit}" if (commit := git_commit()) else "")


def _system() -> str:
    return f"{platform.system()} {platform.machine()}, {'-'.join(platform.libc_ver()) or 'unknown libc'}"


def _torch() -> str | None:
    """The version of torch with its build, which its metadata lack; None if it is not installed."""
    from robustok_core.runs.dependencies import installed_version

    version = installed_version("torch")
    try:
        import torch

        return str(torch.__version__)
    except Exception as error:
        return version and f"{version}, which cannot be imported ({_reason(error)})"


def _libraries() -> dict[str, str | None]:
    """The versions of torch and of the other packages that robustok needs, and of its extras; None if not installed."""
    from robustok_core.runs.dependencies import installed_version, requirements

    others = {name: installed_version(name) for name in requirements() if name != "torch"}
    return {"torch": _torch(), **others}


def _plugins() -> dict[str, str]:
    """The plugins that are not robustok's own, with their versions, and those that failed with their errors."""
    from robustok_core.recipe.registry import load_registry
    from robustok_core.runs.dependencies import installed_version

    found = {}
    for plugin in load_registry().plugins:
        if plugin.distribution != "robustok" or plugin.error:
            of = f"{plugin.distribution} {installed_version(plugin.distribution) or ''}".rstrip()
            found[plugin.name] = of + (f", not in use: {_without_folders(plugin.error)}" if plugin.error else "")
    return found


def _processor() -> str:
    from robustok_core.values.devices import processor_name

    return processor_name()


def _used_of_it() -> str:
    """What torch may use of the processor."""
    import torch

    return torch.backends.cpu.get_cpu_capability()


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _memory() -> str:
    usable, of_machine = usable_memory(), machine_memory()
    limited = "" if usable == of_machine else f", of which this process may use {usable / 2**30:.1f} GiB"
    return f"{of_machine / 2**30:.1f} GiB{limited}"


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def _cuda() -> str | None:
    import torch

    return torch.version.cuda if torch.cuda.device_count() else None


def _precision() -> str:
    import torch

    from robustok_core.runs.precision import MEANING, computes_bf16

    device = torch.device("cuda" if torch.cuda.device_count() else "cpu")
    return MEANING["bf16" if computes_bf16(device) else "no"]


def _variables() -> dict[str, str]:
    from robustok_core.runs.environment import recorded_variables

    return recorded_variables()


_FACTS: Mapping[str, Callable[[], Any]] = {
    "robustok": _robustok,
    "python": platform.python_version,
    "system": _system,
    "libraries": _libraries,
    "plugins": _plugins,
    "processor": _processor,
    "instructions": _used_of_it,
    "cpus": os.cpu_count,
    "threads": _threads,
    "memory": _memory,
    "gpus": _gpus,
    "cuda": _cuda,
    "precision auto": _precision,
    "variables": _variables,
}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        lines = [f"{name}: not installed" if held is None else f"{name} {held}" for name, held in value.items()]
        return "\n".join(lines) or "none"
    if isinstance(value, list):
        return "\n".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
