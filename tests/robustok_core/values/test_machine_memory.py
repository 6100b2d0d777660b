"""The memory that a process may use, where a container, a scheduler or a shell gives it less than the machine has."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from processes import forked
from robustok_core.values import machine_memory
from robustok_core.values.machine_memory import usable_memory

MIB = 2**20


def limited(monkeypatch: pytest.MonkeyPatch, folder: Path, own: str, limits: dict[str, str]) -> int:
    """What may be used in the group `own`, a line of /proc/self/cgroup, with the files of limits in a folder."""
    for name, limit in limits.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{limit}\n")
    (folder / "own").write_text(f"9:name=systemd:/\n{own}\n")
    monkeypatch.setattr(machine_memory, "_GROUPS", folder)
    monkeypatch.setattr(machine_memory, "_OWN_GROUPS", folder / "own")
    return usable_memory()


@pytest.mark.parametrize(
    ("own", "limits"),
    [
        ("0::/job/step", {"job/step/memory.max": f"{300 * MIB}", "job/memory.max": f"{800 * MIB}"}),
        ("0::/job/step", {"job/step/memory.max": "max", "job/memory.max": f"{300 * MIB}"}),
        ("0::/", {"memory.max": f"{300 * MIB}"}),
        ("4:cpu,memory:/job", {"memory/job/memory.limit_in_bytes": f"{300 * MIB}"}),
        ("4:memory:/docker/of-the-machine", {"memory/memory.limit_in_bytes": f"{300 * MIB}"}),
    ],
    ids=["version 2", "an outer group", "a container", "version 1", "a container, version 1"],
)
def test_a_control_group_limits_it(tmp_path, monkeypatch, own, limits):
    assert limited(monkeypatch, tmp_path, own, limits) == 300 * MIB


@pytest.mark.parametrize("own", ["0::/job", "4:memory:/job", "3:cpuset:/job"])
def test_without_a_limit_it_is_that_of_the_machine(tmp_path, monkeypatch, own):
    limits = {"job/memory.max": "max", "job/memory.limit_in_bytes": f"{300 * MIB}"}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert limited(monkeypatch, tmp_path, own, limits) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize("own", ["", "no colon", "0:one", "0::/a\x85b\u2028c", "0::/../..", "0::/a\0b"])
def test_a_list_of_groups_that_says_nothing_limits_nothing(tmp_path, monkeypatch, own):
    limited(monkeypatch, tmp_path, own, {})
    (tmp_path / "own").write_bytes(b"0::/not-utf-8-\xff\n")
    assert usable_memory() > 0


def test_of_two_hierarchies_the_smaller_limit_counts(tmp_path, monkeypatch):
    limits = {"job/memory.max": f"{300 * MIB}", "memory/job/memory.limit_in_bytes": f"{500 * MIB}"}
    assert limited(monkeypatch, tmp_path, "4:memory:/job\n0::/job", limits) == 300 * MIB


def below_ulimit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2**30, resource.getrlimit(resource.RLIMIT_AS)[1]))
    assert usable_memory() == 2**30


def test_so_does_the_shell():
    forked(below_ulimit)
