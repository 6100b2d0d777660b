"""How a command ends when it is asked to: by Ctrl-C, by a scheduler, or because its terminal is closed.

The first signal raises KeyboardInterrupt at once, or, inside a block of `StopRequest.deferred`, is only noted, so that
the block can save what it has. A second signal always raises KeyboardInterrupt.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

#: The signals that ask a command to stop.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds within which signals are one request: a scheduler signals every process, and a launcher passes it on.
_ONE_REQUEST = 2.0


class StopRequest:
    """Whether this process was asked to stop.

    Attributes:
        asked: true from the first signal on.
    """

    def __init__(self) -> None:
        self.asked = False
        self._since = 0.0
        self._deferred = 0

    def handle(self, number: int = signal.SIGINT, frame: FrameType | None = None) -> None:
        """The signal handler."""
        again, now = self.asked, time.monotonic()
        if again and now - self._since < _ONE_REQUEST:
            return
        self.asked, self._since = True, now
        if again or not self._deferred:
            raise KeyboardInterrupt

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that looks at `asked` and ends by itself; KeyboardInterrupt if it ends without having looked."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1
        if self.asked:
            raise KeyboardInterrupt


_INSTALLED: ContextVar[StopRequest | None] = ContextVar("stop_request", default=None)


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Answers signals inside the block; a block inside another one shares its request.

    Only the main thread of a process can answer signals; in another thread, the request is never made.
    """
    if (outer := _INSTALLED.get()) is not None:
        yield outer
        return
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()  # by nohup
    before = {number: signal.signal(number, request.handle) for number in STOP_SIGNALS if number not in ignored}
    token = _INSTALLED.set(request)
    try:
        yield request
    finally:
        _INSTALLED.reset(token)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
