"""A count that lives on a device and in checkpoints, and is known without waiting for that device."""

from __future__ import annotations

from torch import Tensor


class HostCount:
    """The value of an integer buffer; it is read from the device only where another has written the buffer since."""

    def __init__(self) -> None:
        self._value = 0
        self._of: tuple[Tensor, int] | None = None  # the buffer, and how often it had been written

    def value(self, buffer: Tensor) -> int:
        """The value of a scalar buffer."""
        if self._of is None or self._of[0] is not buffer or self._of[1] != buffer._version:
            self._value = int(buffer)
            self._of = buffer, buffer._version
        return self._value

    def increment(self, buffer: Tensor) -> int:
        """Adds 1 to the buffer; returns its new value."""
        value = self.value(buffer) + 1
        buffer += 1
        self._value, self._of = value, (buffer, buffer._version)
        return value
