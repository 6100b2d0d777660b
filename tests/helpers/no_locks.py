"""File systems without locks."""

from __future__ import annotations

import errno
import fcntl
import os

#: Lustre without `-o flock`, NFS without its lock daemon, and file systems in user space.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def without_locks(monkeypatch, number: int) -> None:
    """From now on, every call of flock fails with this number."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
