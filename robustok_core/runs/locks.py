"""Locks on files, by which one command keeps others out; some network file systems have none."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from filelock import BaseFileLock, FileLock

try:
    import fcntl
except ImportError:  # Windows, whose locks every file system has
    fcntl = None  # type: ignore[assignment]

#: What flock says where there are no locks: Lustre without `-o flock`, NFS without its lock daemon, some of FUSE.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP})
NOT_KEPT_APART = "file locks do not work here: nothing keeps a second command out of this folder"


def lock_of(file: Path) -> BaseFileLock | None:
    """The lock of a file, still to be acquired; None where the file system has no locks.

    The file is created if it is missing, as the umask has it: filelock would choose the mode 0644, also for colleagues
    who share the folder. Without flock, filelock would take the file itself for a lock that another process holds.

    Raises:
        OSError: if the file cannot be written.
    """
    file.touch()
    return FileLock(file, mode=stat.S_IMODE(file.stat().st_mode)) if _has_locks(file) else None


def _has_locks(file: Path) -> bool:
    if fcntl is None:
        return True
    opened = os.open(file, os.O_RDWR)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _NO_LOCKS
    finally:
        os.close(opened)
    return True
