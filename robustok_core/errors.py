"""The one exception that users see: what is wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

#: Characters of a message or hint. Names in damaged files and texts of libraries may be of any length.
_LONGEST = 900


class RobustokError(Exception):
    """An error that the user can fix; shown as one message, never as a traceback.

    Args:
        what: what is wrong, in one sentence.
        where: the file, line, key or component it concerns.
        hint: what to do about it.
        exit_code: 2 if the user's input is wrong, 1 if something failed while running.
    """

    def __init__(
        self, what: str, *, where: str | None = None, hint: str | None = None, exit_code: int = EXIT_USAGE
    ) -> None:
        self.what = shortened(what)
        self.where = where and shortened(where)
        self.hint = hint and shortened(hint)
        super().__init__(self.what)
        self.exit_code = exit_code

    @property
    def placed(self) -> str:
        """Where the problem is and what it is, as one text to quote inside another message."""
        return f"{self.where}: {self.what}" if self.where else self.what

    @property
    def problems(self) -> tuple[RobustokError, ...]:
        """What was found: this one, or all that a `ProblemsError` holds."""
        return (self,)

    def __str__(self) -> str:
        return f"{self.placed} ({self.hint})" if self.hint else self.placed

    def __reduce__(self) -> Any:
        # errors cross process boundaries (data loader workers), and subclasses differ in their arguments
        return _restore, (type(self), self.what), self.__dict__


def shortened(text: str) -> str:
    """A text whose middle is left out if it is too long for a message."""
    if len(text) <= _LONGEST:
        return text
    left, right = text[: _LONGEST * 2 // 3], text[-_LONGEST // 4 :]
    return f"{left} [{len(text) - len(left) - len(right):,} characters] {right}"


def _restore(kind: type[RobustokError], what: str) -> RobustokError:
    return kind.__new__(kind, what)


class RunError(RobustokError):
    """Something failed while running: a full disk, a loss that is not finite, a lost file (exit code 1)."""

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what, where=where, hint=hint, exit_code=EXIT_FAILED)


class Interrupted(RobustokError):
    """The user stopped the run; it can resume from its last checkpoint (exit code 130)."""

    def __init__(self, what: str, *, hint: str) -> None:
        super().__init__(what, hint=hint, exit_code=EXIT_INTERRUPTED)


class ProblemsError(RobustokError):
    """Several problems found in one pass, each with its own location and hint; of mistakes if one of them is."""

    def __init__(self, problems: Sequence[RobustokError]) -> None:
        self._problems = tuple({str(problem): problem for problem in problems}.values())
        super().__init__("", exit_code=max((problem.exit_code for problem in problems), default=EXIT_USAGE))
        self.what = "\n".join(map(str, self._problems))
        self.args = (self.what,)

    @property
    def problems(self) -> tuple[RobustokError, ...]:
        """Those found, each once."""
        return self._problems


def raise_all(problems: Sequence[RobustokError]) -> None:
    """Raises what was found: nothing, the one problem, or all of them, each once."""
    if problems:
        error = ProblemsError(problems)
        raise error if len(error.problems) > 1 else error.problems[0]


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """A hint that names the closest known spelling, or all known names if none is close."""
    if close := misspelt(name, known):
        return close
    return f"known: {', '.join(sorted(set(known)))}" if known else "none is known"


def misspelt(name: str, known: Sequence[str]) -> str:
    """A hint that names the closest known spelling, or "" if none is close."""
    close = get_close_matches(str(name), known, n=1)  # a table made in a program may have other keys
    return f"did you mean {close[0]!r}?" if close else ""
