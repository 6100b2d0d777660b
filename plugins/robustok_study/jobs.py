"""Runs the tasks of a study in processes of their own, several at once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tomli_w
from attrs import define, frozen

from robustok_core.errors import EXIT_INTERRUPTED, Interrupted
from robustok_core.runs.files import write_text, writing
from robustok_core.runs.folder import is_in_use
from robustok_core.runs.interrupt import StopRequest, stop_signals
from robustok_core.runs.provenance import now
from robustok_core.runs.reuse import runs_in
from robustok_core.values.numbers import duration_text
from robustok_study.plan import Task
from robustok_study.slots import Slot

_POLL_SECONDS = 0.2
#: The exit codes of a job that was asked to stop: with its work saved, or before it had begun any.
_STOPPED = (EXIT_INTERRUPTED, -signal.SIGTERM)
RECIPES, LOGS = "recipes", "logs"


@frozen(kw_only=True)
class Failure:
    """A task that did not end well: what its process said, and its log; None if it was not started."""

    task: Task
    what: str
    log: Path | None


@define(kw_only=True, eq=False)
class _Running:
    task: Task
    slot: Slot
    process: subprocess.Popen[bytes]
    log: Path
    start: int
    since: float


class Jobs:
    """Runs tasks, each after those that it needs.

    A task whose stage another job should have made, which failed, makes it itself, and others then wait for that: a
    process may fail for want of memory. If it fails too, they are given up.

    Args:
        out: the study's folder. slots: the places for processes. say: prints a line.
        ended: called after each task, with its failure if it failed, or could not start.
        reuse: other runs, or folders of runs, whose finished stages are taken where they are equal.
    """

    def __init__(
        self,
        out: Path,
        slots: Sequence[Slot],
        say: Callable[[str], None],
        ended: Callable[[Task, Failure | None], None],
        reuse: Sequence[Path] = (),
    ) -> None:
        self._reuse = reuse
        self._out, self._slots, self._say, self._ended = out, slots, say, ended
        self._running: list[_Running] = []
        self._done: set[int] = set()
        self._failures: dict[int, Failure] = {}
        self._heirs: dict[int, Task] = {}  # of a task that failed: the one that makes its stages instead
        self._said: set[str] = set()
        self._total = 0

    def run(self, tasks: Sequence[Task]) -> list[Failure]:
        """Runs all tasks; returns those that failed, and those that could not start because of it.

        Raises:
            Interrupted: on Ctrl-C or a request to stop, once every process has saved its work.
        """
        waiting = list(tasks)
        self._total = len(tasks)
        with stop_signals() as stop, contextlib.suppress(KeyboardInterrupt), stop.deferred():
            try:
                self._loop(waiting, stop)
            finally:
                self._kill()
        if stop.asked:
            raise Interrupted("the study was stopped", hint="the same command goes on where it was")
        return list(self._failures.values())

    def _loop(self, waiting: list[Task], stop: StopRequest) -> None:
        try:
            while (waiting or self._running) and not stop.asked:
                self._start(waiting)
                time.sleep(_POLL_SECONDS)
                self._collect()
        finally:
            if self._running:
                self._say(f"stopping {len(self._running)} jobs, which save their work; once more to kill them")
                self._stop()

    def _start(self, waiting: list[Task]) -> None:
        """Starts what can start, and gives up what needs a task that failed."""
        for task in list(waiting):
            if lost := self._lost(task):
                waiting.remove(task)
                what = f"not started, because {' and '.join(before.title for before in lost)} failed"
                self._say(f"{task.title}: {what}")
                self._fail(Failure(task=task, what=what, log=None))
            elif self._ready(task) and (slot := self._free()) is not None:
                if is_in_use(task.job.folder):
                    self._say_once(f"{task.title}: waits for another command that uses {task.job.folder}")
                    continue
                waiting.remove(task)
                self._running.append(self._started(task, slot))

    def _lost(self, task: Task) -> list[Task]:
        """The tasks whose failure leaves a task without what it needs; empty if there are none."""
        for before in task.after:
            if id(before) in self._failures:
                heir = self._heirs.get(id(before))
                if before.job is task.job or before.job.name in task.job.needs:
                    return [before]
                if heir is not None and heir is not task and id(heir) in self._failures:
                    return [before, heir]
        return []

    def _ready(self, task: Task) -> bool:
        """Whether all that a task needs is made, or it can make it itself."""
        failed = [before for before in task.after if id(before) in self._failures]
        heirs = [self._heirs.get(id(before)) for before in failed]
        others = [heir for heir in heirs if heir is not None and heir is not task]
        if any(id(before) not in self._done for before in [*task.after, *others] if before not in failed):
            return False
        for before in failed:
            self._heirs.setdefault(id(before), task)
        return True

    def _fail(self, failure: Failure) -> None:
        self._failures[id(failure.task)] = failure
        self._ended(failure.task, failure)

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    def _free(self) -> Slot | None:
        taken = [id(one.slot) for one in self._running]
        return next((slot for slot in self._slots if id(slot) not in taken), None)

    def _started(self, task: Task, slot: Slot) -> _Running:
        recipe, log = self._out / RECIPES / f"{task.job.name}.toml", self._out / LOGS / f"{task.job.name}.log"
        for file in (recipe, log):
            with writing(file.parent):
                file.parent.mkdir(parents=True, exist_ok=True)
        write_text(recipe, tomli_w.dumps(task.job.recipe.source.table))
        command = [sys.executable, "-m", "robustok_study.job", "run", str(recipe), "--out", str(self._out)]
        for place in (*([self._out] if runs_in(self._out) else []), *self._reuse):
            command += ["--reuse", str(place)]
        command += [] if task.until is None else ["--until", task.until]
        with writing(log), log.open("ab") as opened:
            opened.write(f"--- {now()} {' '.join(command[2:])}\n".encode())
            start = opened.tell()
            opened.flush()
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # held open: the job stops when it is closed, however the study ends
                stdout=opened,
                stderr=opened,
                env={**os.environ, **slot.environment, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # Ctrl-C in a terminal reaches the study only, which passes it on
            )
        self._say(f"{task.title}: started ({slot.name}; {log})")
        return _Running(task=task, slot=slot, process=process, log=log, start=start, since=time.monotonic())

    def _collect(self) -> None:
        """Notes the tasks that have ended."""
        for one in self._ended_ones():
            self._note(one)

    def _ended_ones(self) -> Iterator[_Running]:
        """Those whose processes have ended, which are running no more."""
        for one in list(self._running):
            if one.process.poll() is not None:
                self._running.remove(one)
                _close(one.process)
                yield one

    def _note(self, one: _Running) -> None:
        """Says how a task ended."""
        if one.process.returncode == 0:
            self._done.add(id(one.task))
            seconds = time.monotonic() - one.since
            self._say(f"{one.task.title}: done in {duration_text(seconds)} ({len(self._done)} of {self._total})")
            self._ended(one.task, None)
        else:
            what = _reason(one.log, one.start, one.process.returncode)
            self._say(f"{one.task.title}: failed: {what} ({one.log})")
            self._fail(Failure(task=one.task, what=what, log=one.log))

    def _stop(self) -> None:
        """Asks all processes to stop, and waits for them; then notes those that ended otherwise."""
        for one in self._running:
            _signal(one.process, signal.SIGTERM)
        ended: list[_Running] = []
        while self._running:
            time.sleep(_POLL_SECONDS)
            ended += self._ended_ones()
        for one in ended:  # now, because noting may fail, and then what still runs would be killed
            if one.process.returncode not in _STOPPED:
                self._note(one)

    def _kill(self) -> None:
        """Ends what still runs, after a second request to stop or an error."""
        for one in self._running:
            _signal(one.process, signal.SIGKILL)
            one.process.wait()
            _close(one.process)


def _close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Sends a signal to a job and the processes that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _reason(log: Path, start: int, code: int) -> str:
    """Why a task failed: the last error in its log, or how its process ended."""
    with log.open("rb") as opened:
        opened.seek(start)
        lines = opened.read().decode(errors="replace").splitlines()
    said = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if said:
        what, after = lines[said[-1]].removeprefix("error: "), lines[said[-1] + 1 :][:1]
        hints = [line.strip() for line in after if line.startswith("  hint: ")]
        return "; ".join([what, *hints])
    if code < 0:
        return f"it was ended by signal {-code} ({_signal_name(-code)})"
    return f"exit code {code}: {lines[-1]}" if lines else f"exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
