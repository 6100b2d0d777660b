"""What a component gets from the network, described so that it can be announced, checked and fetched beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen

from robustok_core.errors import RobustokError
from robustok_core.values.wording import reason_of


@frozen(kw_only=True, eq=False)
class Download:
    """A file, or several that belong together, that a component downloads when it is built.

    Attributes:
        what: its name in messages ("the weights of Inception"). Downloads with the same name are the same.
        place: where it is kept.
        variable: the environment variable that moves that place ("TORCH_HOME").
        host: where it comes from ("huggingface.co").
        instead: what to do without a network, such as the option that names a copy.
        present: whether it is there already; must not use the network.
        probe: asks the host for its size in bytes (None if the host does not say), within seconds. Raises any
            exception if it cannot be had.
        fetch: downloads it. Raises any exception if that fails.
        size: in bytes, if known without asking.
    """

    what: str
    place: str
    variable: str
    host: str
    instead: str
    present: Callable[[], bool]
    probe: Callable[[], int | None]
    fetch: Callable[[], Any]
    size: int | None = None

    def require(self, where: str | None) -> None:
        """Checks, before a library tries for minutes, that it is there or that the host has it.

        Raises:
            RobustokError: if neither.
        """
        if not self.present():
            try:
                self.probe()
            except Exception as error:  # each client library has exceptions of its own
                raise self.refusal(reason_of(error), where) from error

    def get(self, where: str | None) -> None:
        """Downloads it unless it is there.

        Raises:
            RobustokError: if that fails.
        """
        if not self.present():
            try:
                self.fetch()
            except Exception as error:
                raise self.refusal(reason_of(error), where) from error

    def refusal(self, reason: str, where: str | None) -> RobustokError:
        """The error that says why it cannot be had, and what to do."""
        what = f"cannot get {self.what} from {self.host}: {reason}"
        hint = f"{self.instead}; or copy {self.place} from a machine that has it ({self.variable} moves this place)"
        return RobustokError(what, where=where, hint=hint)

    def describe(self, size: int | None = None) -> str:
        """ "the weights of Inception (91 MB) to FILE"."""
        known = self.size if size is None else size
        return f"{self.what}{'' if known is None else f' ({size_text(known)})'} to {self.place}"


def size_text(size: int) -> str:
    """A number of bytes as people write it: "528 MB"."""
    value = size / 1e6
    return f"{value / 1e3:.1f} GB" if value >= 1e3 else f"{value:.0f} MB" if value >= 10 else f"{value:.1f} MB"


def named_path(option: str | None, *words: str) -> tuple[Path, ...]:
    """The file or folder that an option names, there or not; none where it is left out or is one of its `words`."""
    return () if option is None or option in words else (Path(option).expanduser(),)


def local_file(path: str, *, hint: str) -> Path:
    """A file that an option names, `~` expanded.

    Raises:
        RobustokError: if there is no such file.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        what = f"there is no file {path!r}" if not file.is_dir() else f"{path!r} is a folder, not a file"
        raise RobustokError(what, hint=hint)
    return file
