"""How much memory this process may use: the machine's, or what a container, a job scheduler or a shell leaves of it."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def usable_memory() -> int:
    """Bytes of memory that this process may use; others of its container or job use the same memory."""
    limits = [machine_memory(), *_limits_of_groups()]
    of_process = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min(limits if of_process == resource.RLIM_INFINITY else [*limits, of_process])


def machine_memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits_of_groups() -> Iterator[int]:
    """Those of the control group of this process and of the groups around it (docs.kernel.org, cgroup-v1 and -v2)."""
    for line in _lines(_OWN_GROUPS):
        _, has_controllers, rest = line.partition(":")
        controllers, has_group, group = rest.partition(":")
        if not (has_controllers and has_group):
            continue
        if controllers == "":
            root, name = _GROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = _GROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        inside = root / group.strip("/")
        # In a container, the path may be the host's; only the container's own group is visible, as the root.
        for folder in (inside, *inside.parents):
            if folder.is_relative_to(root):
                yield from (int(limit) for limit in _lines(folder / name) if limit.isascii() and limit.isdecimal())


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except (OSError, ValueError):  # no Linux, a group that is not seen from here, or a name that is no path
        return []
