"""A process that dies ends the others within seconds, with one message that names it and says how it died."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

from processes import kill, two_forked
from project import Project
from robustok_core import RobustokError
from robustok_core.cli import main
from robustok_core.runs.peers import Lost, Peer, Peers
from robustok_training.progress import StepProgress

EVALUATION = {
    "use": "evaluate_tokenizer",
    "metrics": {"rfd": {"use": "frechet", "features": {"use": "fashion_classifier"}}},
    "batch_size": 5,
}


def raise_a_mistake() -> None:
    raise RobustokError("a mistake", hint="mend it")


def raise_a_bug() -> None:
    raise ValueError("a bug")


def acting(stage: str, rank: str, act: Callable[[], None], died: Path) -> Callable[..., None]:
    """`StepProgress.update` that acts on one process when a stage reports its progress for the second time."""
    real, seen = StepProgress.update, []

    def update(self, done, values=None):
        real(self, done, values)
        if self._title == stage and os.environ["RANK"] == rank:
            seen.append(done)
            if len(seen) == 2:
                died.write_text(str(time.time()))
                act()

    return update


@pytest.mark.parametrize(
    ("stage", "rank", "act", "said"),
    [
        ("train_tokenizer", "1", kill, "has died without a message: SIGKILL"),
        ("evaluate_tokenizer", "0", lambda: os._exit(3), "has died without a message: exit code 3"),
        ("sample", "1", kill, "has died without a message: SIGKILL"),
        ("train_tokenizer", "1", raise_a_mistake, "a mistake"),
        ("sample", "0", raise_a_bug, "ValueError: a bug"),
    ],
    ids=[
        "killed in training",
        "ends in evaluation",
        "killed in sampling",
        "a mistake in training",
        "a bug in sampling",
    ],
)
def test_a_process_that_dies_ends_the_other_with_one_message(trained, tmp_path, monkeypatch, stage, rank, act, said):
    if stage == "train_tokenizer":
        project = Project(tmp_path / "runs", train_tokenizer={"epochs": 4})
    elif stage == "sample":
        project = trained.later(tmp_path / "runs", ["sample"], load=("tokenizer", "generator"))
        project.table["stage"][0]["part_size"] = 3
    else:
        project = trained.later(tmp_path / "runs", [EVALUATION])
    file, died = tmp_path / "r.toml", tmp_path / "died"
    file.write_text(tomli_w.dumps(project.table))
    monkeypatch.setattr(StepProgress, "update", acting(stage, rank, act, died))
    ended = two_forked(lambda: main(["run", str(file), "--out", str(project.out), "--quiet"]), tmp_path)
    seconds = time.time() - float(died.read_text())
    codes, written = [code for code, _ in ended], "".join(text for _, text in ended)
    assert all(codes), codes
    assert codes[1 - int(rank)] == 1
    errors = [line for line in written.splitlines() if line.startswith("error")]
    assert len(errors) == 1, written
    assert said in written
    if "died" in said:
        assert f"process {rank} of this run (pid " in errors[0]
    else:
        assert errors[0].startswith("error on process 1: " if rank == "1" else "error: "), errors
    assert seconds < 60, written


def test_who_is_done_is_not_missed(sleeper):
    own, other = Peer(1, "a", os.getpid()), Peer(0, "a", sleeper)
    peers = Peers(own, [other], end=lambda lost: None)
    Peers(other, [own], end=lambda lost: None).stop()
    os.kill(sleeper, signal.SIGKILL)
    assert peers.lost(3.0) is None
    peers.stop()


class Store(dict[str, bytes]):
    """A store as `TCPStore` is one."""

    def set(self, name: str, value: str) -> None:
        self[name] = value.encode()

    def check(self, names: list[str]) -> bool:
        return all(name in self for name in names)


@pytest.fixture
def sleeper():
    """A process that does nothing."""
    number = os.fork()
    if number == 0:
        time.sleep(60)
        os._exit(0)
    yield number
    os.waitpid(number, 0)


def test_a_process_that_waits_for_a_dead_one_is_ended(sleeper):
    ended: list[Lost] = []
    peers = Peers(Peer(0, "a", os.getpid()), [Peer(1, "a", sleeper)], store=Store(), end=ended.append, patience=0.1)
    assert peers.lost() is None
    os.kill(sleeper, signal.SIGKILL)
    lost = peers.lost(30)
    assert lost is not None
    assert (lost.peer.rank, lost.how, lost.said) == (1, "SIGKILL", False)
    assert [lost.is_said_by(rank) for rank in (0, 1, 2)] == [True, False, False]
    until = time.monotonic() + 30
    while not ended and time.monotonic() < until:
        time.sleep(0.01)
    assert ended == [lost]


def test_who_has_said_why_is_not_said_again(sleeper):
    own, other = Peer(1, "a", os.getpid()), Peer(0, "a", sleeper)
    peers = Peers(own, [other], end=lambda lost: None)
    Peers(other, [own], end=lambda lost: None).tell("said")
    os.kill(sleeper, signal.SIGTERM)
    lost = peers.lost(30)
    assert lost is not None
    assert not any(lost.is_said_by(rank) for rank in (0, 1, 2))
    peers.stop()


def test_a_machine_of_the_same_name_is_another(sleeper):
    """A process here that happens to have the number of one there may end."""
    own, far = Peer(0, "localhost", os.getpid()), Peer(1, "localhost", sleeper, kernel="another")
    peers = Peers(own, [far], store=Store(), end=lambda lost: None)
    os.kill(sleeper, signal.SIGKILL)
    assert peers.lost(2.0) is None
    peers.stop()


def test_another_machine_that_gives_no_sign_of_life_is_lost():
    store = Store()
    near, far = Peer(0, "a", os.getpid()), Peer(1, "b", 1)
    quick = {"store": store, "end": lambda lost: None, "beat": 0.05}
    one, other = Peers(near, [far], silence=1.0, **quick), Peers(far, [near], silence=60.0, **quick)
    assert one.lost(2.0) is None
    other.stop()
    lost = one.lost(30)
    assert lost is not None
    assert "process 1 of this run (pid 1 on b) has died without a message: no sign of life for 1 seconds" in str(
        lost.error()
    )
    assert other.lost() is None
    one.stop()
