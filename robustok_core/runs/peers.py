"""The other processes of a run: whether one of them has died, which one, and how.

A process that dies leaves the others waiting in a collective operation: gloo notices the closed connection, NCCL may
wait for hours. So each process watches those on its machine, and hears from other machines every few seconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any

from attrs import field, frozen

from robustok_core.errors import RunError
from robustok_core.values.terminal import echo_lines

#: Seconds for this process to end by itself once another one has died, with the message of what it noticed.
_PATIENCE = 10.0
#: Seconds between signs of life to other machines, and without one before a process there counts as lost.
_BEAT, _SILENCE = 5.0, 120.0
#: What processes of one machine tell each other.
_SAID, _DONE = "said", "done"
#: How a process ends that has not failed: it is done, or was asked to stop.
_ENDED = (0, 130)


def _kernel() -> str:
    """What processes that see each other's numbers have in common; machines or containers may have the same name."""
    with contextlib.suppress(OSError):
        booted = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{booted} {Path('/proc/self/ns/pid').readlink()}"
    return ""


@frozen
class Peer:
    """A process of the run; `address` is where it hears from the others on its machine."""

    rank: int
    host: str
    pid: int
    address: str = field(factory=lambda: f"\0robustok-{uuid.uuid4().hex}")
    kernel: str = field(factory=_kernel)

    def is_near(self, other: Peer) -> bool:
        """Whether the two run on the same machine, and each sees the other."""
        return (self.host, self.kernel) == (other.host, other.kernel)


class LostProcessError(RunError):
    """Another process of this run has died."""

    lost: Lost


@frozen
class Lost:
    """A process that has died.

    Attributes:
        how: "SIGKILL", "exit code 3"; None if that cannot be seen.
        said: whether it ends with a message of its own.
    """

    peer: Peer
    how: str | None
    said: bool = False

    def error(self) -> LostProcessError:
        """What the others say of it."""
        which = f"process {self.peer.rank} of this run (pid {self.peer.pid} on {self.peer.host})"
        hint = "the same command goes on from the last checkpoint"
        if self.how == "SIGKILL":
            hint = f"the system kills processes when memory runs out; {hint}"
        how = ": it was killed, or crashed" if self.how is None else f": {self.how}"
        error = LostProcessError(f"{which} has died without a message{how}", hint=hint)
        error.lost = self
        return error

    def is_said_by(self, rank: int) -> bool:
        """Whether the process of this number has to say it, for all."""
        return not self.said and rank == (1 if self.peer.rank == 0 else 0)


class Peers:
    """Watches the other processes from a thread until `stop`.

    Args:
        own: this process. others: the processes to watch. store: shared by all processes, to hear from other machines.
        end: called with what was lost if this process has not ended `patience` seconds after.
    """

    def __init__(
        self,
        own: Peer,
        others: Sequence[Peer],
        *,
        store: Any = None,
        end: Callable[[Lost], None],
        patience: float = _PATIENCE,
        beat: float = _BEAT,
        silence: float = _SILENCE,
    ) -> None:
        self._own, self._store, self._end = own, store, end
        self._patience, self._beat, self._silence = patience, beat, silence
        self._far = {peer.rank: peer for peer in others if not peer.is_near(own)}
        self._heard = {rank: (b"", time.monotonic()) for rank in self._far}
        self._near = [peer for peer in others if peer.is_near(own)]
        self._open = _opened(self._near)
        self._ear = _listening(own.address)
        self._done: set[int] = set()
        self._lost: Lost | None = None
        self._found, self._stopped = threading.Event(), threading.Event()
        threading.Thread(target=self._watch, name="robustok peers", daemon=True).start()

    def lost(self, wait: float = 0.0) -> Lost | None:
        """The first process that has died, if any; waits so many seconds for one."""
        self._found.wait(wait)
        return self._lost

    def stop(self) -> None:
        """Ends the watch: whoever ends from now on is not missed, and neither is this process."""
        self.tell(_DONE)
        self._stopped.set()

    def tell(self, what: str) -> None:
        """Tells the processes of this machine that this one is done, or ends with a message of its own."""
        for peer in self._near:
            with contextlib.suppress(OSError, AttributeError):  # it may have ended, or there is no ear
                self._ear.sendto(f"{what} {self._own.rank}".encode(), peer.address)  # type: ignore[union-attr]

    def _watch(self) -> None:
        try:
            self._look_and_listen()
        finally:
            for descriptor in self._open:
                os.close(descriptor)
            if self._ear is not None:
                self._ear.close()

    def _look_and_listen(self) -> None:
        poll = select.poll()
        for descriptor in self._open:
            poll.register(descriptor, select.POLLIN)
        if self._ear is not None:
            poll.register(self._ear, select.POLLIN)
        beaten = 0.0
        while not self._stopped.is_set():
            for descriptor, _ in poll.poll(min(self._beat, 1.0) * 1000):
                self._hear()
                if descriptor in self._open:
                    poll.unregister(descriptor)
                    self._has_ended(self._open[descriptor])
            if self._far and time.monotonic() - beaten > self._beat:
                beaten = time.monotonic()
                self._listen()
            if self._lost is not None and not self._stopped.wait(self._patience):
                self._end(self._lost)
                return

    def _has_ended(self, peer: Peer) -> None:
        how = _how_it_ended(peer.pid)
        self._hear()  # once more, for what it told before it died
        if how not in _ENDED and peer.rank not in self._done:
            self._set_lost(Lost(peer, None if how is None else _in_words(how)))

    def _hear(self) -> None:
        """Takes what the processes of this machine have told."""
        while self._ear is not None:
            try:
                what, _, rank = self._ear.recv(64).decode(errors="replace").partition(" ")
            except OSError:  # nothing more
                return
            told = [peer for peer in self._near if str(peer.rank) == rank]
            if what == _DONE:
                self._done.update(peer.rank for peer in told)
            for peer in told if what == _SAID else ():
                self._set_lost(Lost(peer, None, said=True))

    def _listen(self) -> None:
        """Gives a sign of life to other machines, and notes whose signs have stopped."""
        with contextlib.suppress(Exception):
            self._store.set(f"robustok/alive/{self._own.rank}", str(time.monotonic()))
            for rank, (before, since) in self._heard.items():
                name = f"robustok/alive/{rank}"
                sign = self._store.get(name) if self._store.check([name]) else b""
                self._heard[rank] = (before, since) if sign == before else (sign, time.monotonic())
        for rank, (_, since) in self._heard.items():
            if time.monotonic() - since > self._silence:
                self._set_lost(Lost(self._far[rank], f"no sign of life for {self._silence:g} seconds"))

    def _set_lost(self, lost: Lost) -> None:
        if self._lost is None and not self._stopped.is_set():
            self._lost = lost
            self._found.set()


def _opened(peers: Any) -> dict[int, Peer]:
    """The processes by a descriptor that becomes readable when they end; none where the system has no such thing."""
    opened = {}
    if hasattr(os, "pidfd_open"):
        for peer in peers:
            with contextlib.suppress(OSError):
                opened[os.pidfd_open(peer.pid)] = peer
    return opened


def _listening(address: str) -> socket.socket | None:
    with contextlib.suppress(OSError, AttributeError):  # other systems than Linux have no such addresses
        ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ear.setblocking(False)
        ear.bind(address)
        return ear
    return None


def _how_it_ended(pid: int) -> int | None:
    """The exit code of a process, negative for a signal; None if its parent has already asked for it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] not in ("Z", "X"):  # another process has its number now
        return None
    return os.waitstatus_to_exitcode(int(fields[49]))


def _in_words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


_WATCHED: ContextVar[Peers | None] = ContextVar("watched peers", default=None)


def watch_peers() -> None:
    """Begins to watch the other processes, once they are connected; all must call it."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1 or _WATCHED.get():
        return
    own = Peer(dist.get_rank(), socket.gethostname(), os.getpid())
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    others = [peer for peer in everyone if peer != own]
    _WATCHED.set(Peers(own, others, store=_store(os.environ), end=lambda lost: _give_up(own, lost)))


def stop_watching() -> None:
    """Ends what `watch_peers` began."""
    if (watched := _WATCHED.get()) is not None:
        watched.stop()
        _WATCHED.set(None)


def lost_peer(wait: float = 0.0) -> Lost | None:
    """The first process of this run that has died, if any is known of."""
    watched = _WATCHED.get()
    return None if watched is None else watched.lost(wait)


def end_with_a_message() -> None:
    """Lets the other processes know that this one has said why it ends."""
    if (watched := _WATCHED.get()) is not None:
        watched.tell(_SAID)


def _store(environment: Mapping[str, str]) -> Any:
    """A connection of its own to the launcher's store, so that the thread waits for nobody; None without one."""
    try:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        place = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
        return TCPStore(*place, is_master=False, timeout=timedelta(seconds=10), wait_for_workers=False)
    except Exception:  # no launcher
        return None


def _give_up(own: Peer, lost: Lost) -> None:
    """Ends this process, which waits for one that has died."""
    if lost.is_said_by(own.rank):
        error = lost.error()
        prefix = f"error on process {own.rank}" if own.rank else "error"
        echo_lines(f"{prefix}: {error.what}\n  hint: {error.hint}", err=True)
        sys.stderr.flush()
    os._exit(1)
