"""Standard output and standard error whose failure never ends a command."""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from robustok_core.values.terminal import accept_all


class SafeStream:
    """A text stream that escapes what it cannot encode, and drops what it cannot write.

    Attributes:
        lost: why nothing can be written any more; None if all is well or the reader has left (`robustok ... | head`).
        silent: whether what is written is dropped: another process says the same.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None
        self.silent = False

    def __getattr__(self, name: str) -> Any:
        if name == "buffer" and is_ascii(self._stream):  # click would write UTF-8 to it
            raise AttributeError(name)
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text, unless the stream is silent; never raises OSError."""
        with self._guarded():
            if not self.silent:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Never raises OSError."""
        with self._guarded():
            self._stream.flush()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno != errno.EPIPE:
                self.lost = error
            nothing = os.open(os.devnull, os.O_WRONLY)  # also for what Python still holds back
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)


def is_ascii(stream: TextIO) -> bool:
    """Whether a stream can write ASCII characters only."""
    with suppress(LookupError):
        return codecs.lookup(stream.encoding or "utf-8").name == "ascii"
    return False


@contextmanager
def safe_streams() -> Iterator[SafeStream | None]:
    """Makes sys.stdout and sys.stderr safe inside the block; gives standard output, unless it is closed."""
    before = sys.stdout, sys.stderr
    safe = [None if stream is None else SafeStream(stream) for stream in before]
    errors = [getattr(stream, "errors", None) for stream in before]
    for stream in filter(None, before):
        accept_all(stream)
    sys.stdout, sys.stderr = cast(TextIO, safe[0]), cast(TextIO, safe[1])
    try:
        yield safe[0]
    finally:
        for held in filter(None, safe):
            held.flush()
        sys.stdout, sys.stderr = before
        for stream, old in zip(before, errors, strict=True):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors=old)
