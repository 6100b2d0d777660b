"""How much memory this process may use: the machine's, or what a container, a job scheduler or a shell leaves of it."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def usable_memory() -> int:
    """Bytes of memory that this process may use, all in all."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    of_process = resource.getrlimit(resource.RLIMIT_AS)[0]
    if of_process != resource.RLIM_INFINITY:
        limits.append(of_process)
    return min([*limits, *_limits_of_groups()])


def _limits_of_groups() -> Iterator[int]:
    """Those of the control group of this process and of the groups around it (docs.kernel.org, cgroup-v1 and -v2)."""
    for line in _lines(_OWN_GROUPS):
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            root, name = _GROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = _GROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        inside = root / group.strip("/")
        # In a container the path may be that outside, of which only the group itself is seen, as the root.
        for folder in (inside, *inside.parents):
            if folder.is_relative_to(root):
                yield from (int(line) for line in _lines(folder / name) if line.isdecimal())


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux, or a group that is not seen from here
        return []
