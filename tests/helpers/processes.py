"""Other processes for tests: ones that die, and ones that work together."""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed.nn.functional  # first, as in robustok_core/runs/accelerator.py
from accelerate.state import AcceleratorState

from robustok_core import hookimpl


def one_and_two(script: Path, folder: Path) -> None:
    """Runs `SCRIPT RANK WORLD FOLDER` as the one process of a world of one, and as both of a world of two."""
    modules = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": modules}
    started = [
        subprocess.Popen([sys.executable, script, rank, world, folder], env=environment, stderr=subprocess.PIPE)
        for rank, world in (("0", "1"), ("0", "2"), ("1", "2"))
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], "\n".join(errors)


def connected(main: Callable[[int, int, Path], None]) -> None:
    """Calls `main(rank, world, folder)` in a script that `one_and_two` started, connected by gloo if there are two."""
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    if world > 1:
        meeting = f"file://{folder / 'meeting'}"
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    main(rank, world, folder)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def two_forked(action: Callable[[], Any], folder: Path, **environment: str) -> list[tuple[int, str]]:
    """Calls `action` in two copies of this process that are connected; gives the exit code and stderr of each.

    As one process that starts another, but without its seconds of imports.
    """
    together = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    together |= {"ACCELERATE_USE_CPU": "true", **environment}
    folder.mkdir(parents=True, exist_ok=True)
    fork = multiprocessing.get_context("fork")

    def act(rank: str) -> None:
        os.environ |= {**together, "RANK": rank, "LOCAL_RANK": rank}
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(folder / f"{name}-{rank}", os.O_WRONLY | os.O_CREAT), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        AcceleratorState._reset_state(reset_partial_state=True)
        action()

    started = [fork.Process(target=act, args=(rank,)) for rank in ("0", "1")]
    for process in started:
        process.start()
    ended = [multiprocessing.connection.wait([process.sentinel], timeout=300) for process in started]
    assert all(ended), "a process hangs"
    for process in started:
        process.join()  # only now: who asks how a process ended is the last to know
    return [(int(p.exitcode or 0), (folder / f"stderr-{rank}").read_text()) for rank, p in enumerate(started)]


def free_port() -> str:
    """A port of this machine; older launchers wait for ever on port 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def launcher() -> tuple[str, ...]:
    """What starts two CPU processes with `accelerate launch`, after `python`; needs ACCELERATE_USE_CPU=true."""
    launch = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
    return (*launch, "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", free_port())


def kill() -> None:
    """Kills this process, as a scheduler does that has lost patience."""
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_process_that_dies(action: Callable[[], Any]) -> None:
    """Calls `action` in a copy of this process; fails unless it is killed."""
    process = multiprocessing.get_context("fork").Process(target=action)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def killed_in_a_shard(action: Callable[[], Any], file: int) -> None:
    """Calls `action` in another process, which is killed half-way through writing its `file`-th file of a shard."""
    import robustok_toolkit.resumable_shards

    real, written = robustok_toolkit.resumable_shards.write_array, []

    def write_array(path: Path, array: Any) -> None:
        written.append(path)
        if len(written) == file:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".writing-{path.name}").write_bytes(b"half")
            kill()
        real(path, array)

    def act() -> None:
        robustok_toolkit.resumable_shards.write_array = write_array
        action()

    in_a_process_that_dies(act)


class AtStep:
    """A plugin that acts after a logged step."""

    def __init__(self, step: int, act: Callable[[], None] = kill) -> None:
        self.step, self.act = step, act

    @hookimpl
    def robustok_step_logged(self, folder, stage, step, values):
        if step == self.step:
            self.act()


def without_privileges(action: Callable[[], Any]) -> None:
    """Calls `action` in a copy of this process to which the modes of files apply, also if this one is root's."""
    forked(lambda: (_drop_capabilities(), action()))


def forked(action: Callable[[], Any]) -> None:
    """Calls `action` in a copy of this process; fails as it does."""
    fork = multiprocessing.get_context("fork")
    failed = fork.SimpleQueue()

    def act() -> None:
        try:
            action()
        except BaseException:
            failed.put(traceback.format_exc())

    process = fork.Process(target=act)
    process.start()
    process.join()
    assert failed.empty(), failed.get()
    assert process.exitcode == 0


def _drop_capabilities() -> None:
    version_3, this_thread = 0x20080522, 0
    header, none = struct.pack("Ii", version_3, this_thread), bytes(24)
    assert ctypes.CDLL(None).capset(header, none) == 0
