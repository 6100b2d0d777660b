"""`robustok env`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from robustok_core.values.terminal import echo, echo_lines


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def env(as_json: bool) -> None:
    """Print what a bug report needs: versions, plugins, processor, memory and precision.

    It has no paths, names of users or of machines, so it can be pasted as it is.
    """
    found = _found()
    if as_json:
        echo_lines(json.dumps(found, indent=2))
        return
    rows = [(name, _text(value)) for name, value in found.items()]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        for number, line in enumerate(text.split("\n")):
            echo(f"{'' if number else name:<{width}}  {line}".rstrip())


def _found() -> dict[str, Any]:
    import os
    import platform

    import torch

    from robustok_core import __version__
    from robustok_core.recipe.registry import load_registry
    from robustok_core.runs.environment import recorded_variables
    from robustok_core.runs.precision import MEANING, computes_bf16
    from robustok_core.runs.source_commit import git_commit

    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    device = torch.device("cuda" if devices else "cpu")
    return {
        "robustok": __version__ + (f", commit {commit}" if (commit := git_commit()) else ""),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {'-'.join(platform.libc_ver()) or 'unknown libc'}",
        "libraries": _libraries(),
        "plugins": _plugins(load_registry()),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": _memory(),
        "gpus": devices,
        "cuda": torch.version.cuda if devices else None,
        "precision auto": MEANING["bf16" if computes_bf16(device) else "no"],
        "variables": recorded_variables(),
    }


def _libraries() -> dict[str, str | None]:
    """The versions of torch and of the other packages that robustok needs, and of its extras; None if not installed."""
    import re
    from importlib.metadata import PackageNotFoundError, requires, version

    import torch

    found: dict[str, str | None] = {"torch": torch.__version__}  # with its build, which its metadata lack
    for requirement in sorted(requires("robustok") or ()):
        name = re.split(r"[^A-Za-z0-9_.-]", requirement)[0]
        if name not in ("robustok", "torch") and not re.search(r"extra *== *['\"](dev|docs|test)['\"]", requirement):
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = None
    return found


def _plugins(registry: Any) -> dict[str, str]:
    """The plugins that are not robustok's own, with their versions, and those that failed with their errors."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for plugin in registry.plugins:
        if plugin.distribution != "robustok" or plugin.error:
            try:
                of = f"{plugin.distribution} {version(plugin.distribution)}"
            except PackageNotFoundError:
                of = plugin.distribution
            found[plugin.name] = of + (f", not in use: {plugin.error.partition(':')[0]}" if plugin.error else "")
    return found


def _processor() -> str:
    """The processor's name and what torch may use of it."""
    import platform
    from pathlib import Path

    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def _memory() -> str:
    import os

    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    except (ValueError, OSError):
        return "unknown"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        lines = [f"{name} {'not installed' if held is None else held}" for name, held in value.items()]
        return "\n".join(lines) or "none"
    if isinstance(value, list):
        return "\n".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
