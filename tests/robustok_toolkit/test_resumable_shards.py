"""Shards that processes share: a request to stop that reaches one process stops all of them."""

from __future__ import annotations

from pathlib import Path

from processes import one_and_two

SCRIPT = Path(__file__).with_name("shards_two_processes.py")


def test_all_processes_stop_in_the_same_round_though_only_one_was_asked(tmp_path):
    one_and_two(SCRIPT, tmp_path)
    for process in ("0-of-1", "0-of-2", "1-of-2"):
        said = (tmp_path / f"{process}.txt").read_text()
        assert said.startswith("stopped in round 2 of ")
        assert said.endswith("; the finished shards are saved")
    kept = {
        world: sorted(int(f.name[5:14]) for f in (tmp_path / f"shards-of-{world}").glob("*.npy")) for world in (1, 2)
    }
    assert kept == {1: [0], 2: [0, 4, 12]}  # of two, process 0 left its second shard, which begins at row 8
