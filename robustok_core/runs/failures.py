"""Failures of the machine, not of the program: they are said in one message instead of a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from robustok_core.errors import RobustokError, RunError
from robustok_core.runs.interrupt import stop_signals
from robustok_core.runs.memory import MemoryRanOutError
from robustok_core.runs.peers import lost_peer

_OF_A_LOADER = "DataLoader worker (pid"
#: What a file system or the system refuses, whatever a program asks of it. That a file is missing is not among them:
#: whoever opens a file that need not be there says so itself.
_REFUSED = frozenset(
    getattr(errno, name)
    for name in (
        *("EACCES", "EPERM", "EROFS", "ENAMETOOLONG", "ELOOP", "ENOSPC", "EDQUOT", "EFBIG", "EIO", "ESTALE"),
        *("EMFILE", "ENFILE", "ENOMEM", "EBUSY", "ETXTBSY"),
    )
)
_OF_A_CONNECTION = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed"),  # gloo
    *("NCCL communicator was aborted", "remote process exited", "Timed out waiting", "timeout"),  # and NCCL
)
_NO_MEMORY = "can't allocate memory"  # of torch's allocator on CPUs
#: Seconds until it is known which process has died, after its connection is closed.
_SOON = 2.0


@contextmanager
def named_failures(stage: str, where: str) -> Iterator[None]:
    """A block in which a stage works. An error after a request to stop is a consequence of it.

    Raises:
        KeyboardInterrupt: the user asked to stop.
        RunError: a failure of the machine, or the stage tried to end the program.
    """
    with stop_signals() as stop:
        try:
            yield
        except RobustokError:
            raise
        except SystemExit as error:
            what = f"stage {stage!r} tried to end the program with sys.exit({error.code!r})"
            raise RunError(what, where=where) from error
        except Exception as error:
            if stop.asked:
                raise KeyboardInterrupt from error
            if (failure := failure_of_the_machine(error)) is not None:
                raise failure from error
            raise
        if stop.asked:  # and the interrupt was lost, which happens where Python ignores exceptions
            raise KeyboardInterrupt


def failure_of_the_machine(error: BaseException) -> RunError | None:
    """The message for a data loader process that was killed, for memory that ran out, for what the file system refuses
    (no permission, a name that is too long, too many open files), or for a lost process.

    None for any other error.
    """
    lines = str(error).splitlines()
    first = lines[0].rstrip(". ") if lines else ""
    if isinstance(error, RuntimeError) and _OF_A_LOADER in first:
        return loader_failure(first, killed="killed by signal: Killed" in first)
    if isinstance(error, RuntimeError) and "home directory" in first:  # of pathlib
        return RunError("the home folder is not known", hint="set HOME, or write whole paths instead of ~")
    if isinstance(error, OSError) and error.errno in _REFUSED:
        where = None if error.filename is None else os.fsdecode(error.filename)
        hint = "is it yours to read and write?" if error.errno in (errno.EACCES, errno.EPERM) else None
        return RunError(f"cannot be read or written: {error.strerror}", where=where, hint=hint)
    if isinstance(error, FileNotFoundError) and not _has_working_folder():
        return RunError("the working folder is no longer there", hint="change into one that exists")
    if isinstance(error, MemoryError):
        hint = "use smaller batches or fewer workers, or give the run more memory"
        return MemoryRanOutError("memory ran out", hint=hint)
    torch = sys.modules.get("torch")
    out_of_memory = isinstance(error, getattr(torch, "OutOfMemoryError", ()))  # a torch that failed to load has none
    if out_of_memory or (isinstance(error, RuntimeError) and _NO_MEMORY in str(error)):
        hint = "use a smaller batch_size, or a larger accumulation in a training stage"
        return MemoryRanOutError(first, hint=hint)
    if torch is not None and (lost := _lost_connection(torch, error)):
        if (dead := lost_peer(_SOON)) is not None:
            return dead.error()
        hint = "the message of the process that stopped first says why; the same command goes on"
        what = "does not answer" if lost.lower().startswith("time") else "has stopped"
        return RunError(f"another process of this run {what} ({lost})", hint=hint)
    return None


def _has_working_folder() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 (the same)
    except FileNotFoundError:
        return False
    return True


def loader_failure(what: str, *, killed: bool) -> RunError:
    """The error for a process that loads data and has failed; `killed` is whether the system has killed it."""
    hint = "the system may have run out of memory or of shared memory (/dev/shm); use fewer workers"
    if killed:
        hint = "the system kills processes when memory runs out; use fewer workers or give the run more memory"
    return RunError(what, where="data loader", hint=hint)


def _lost_connection(torch: ModuleType, error: BaseException) -> str | None:
    if not isinstance(error, RuntimeError) or not hasattr(torch, "distributed") or not torch.distributed.is_available():
        return None
    if not torch.distributed.is_initialized():
        return None
    return next((said for said in _OF_A_CONNECTION if said in str(error)), None)
