"""The `robustok` command. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import traceback
import warnings
from importlib.metadata import EntryPoint, entry_points

import click

from robustok_core import __version__
from robustok_core.cli.said_once import is_another_process, is_ours_to_say, num_processes, process_number
from robustok_core.cli.streams import safe_streams
from robustok_core.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    Interrupted,
    RobustokError,
    RunError,
    misspelt,
    shortened,
)
from robustok_core.runs.dependencies import failed_import
from robustok_core.runs.failures import failure_of_the_machine
from robustok_core.runs.interrupt import StopRequest, stop_signals
from robustok_core.runs.peers import LostProcessError, end_with_a_message, lost_peer, stop_watching
from robustok_core.values.command_line import as_command
from robustok_core.values.printable import printable
from robustok_core.values.terminal import echo, echo_lines, printable_notes
from robustok_core.values.wording import failure_of

_RUN = EntryPoint("run", "robustok_core.cli.run:run", "robustok.commands")


class Commands(click.Group):
    """`run`, and the commands that installed packages register in the entry point group "robustok.commands"."""

    def list_commands(self, _: click.Context) -> list[str]:
        """Lists the command names without loading any command."""
        return [_RUN.name, *sorted(entry_points(group="robustok.commands").names)]

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        """Loads a command; if its package fails to load, returns a command that reports why."""
        for point in [_RUN] if name == _RUN.name else entry_points(group="robustok.commands", name=name):
            try:
                command = point.load()
            except BaseException as error:  # one broken package must not disable the other commands
                return _broken(name, failure_of(error), failed_import(error))
            return command if isinstance(command, click.Command) else _broken(name, f"{point.value} is no command")
        return None

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Adds the nearest name to the message about an unknown one: click looks among commands that are loaded."""
        try:
            return super().resolve_command(context, arguments)
        except click.UsageError as error:
            if not (close := misspelt(arguments[0], self.list_commands(context))):
                raise
            raise click.UsageError(f"{error.message} {close[0].upper()}{close[1:]}", error.ctx) from error


def _broken(name: str, reason: str, known: RobustokError | None = None) -> click.Command:
    """A command that only says why it failed to load; `known` says it better than the error that was raised."""

    def refuse() -> None:
        raise known or RobustokError(f"the command {name!r} failed to load: {reason}")

    return click.Command(
        name,
        callback=refuse,
        short_help=printable(f"Failed to load: {reason}"),
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="robustok")
def cli() -> None:
    """Train image tokenizers for generation: latent perturbation, pFID, decoder post-training."""


def _wait_briefly() -> None:
    """Makes idle OpenMP threads yield their core early. Must run before torch is imported, when OpenMP reads it.

    By default they spin for milliseconds, which starves the thread they wait for when other programs use the cores.
    """
    if "torch" not in sys.modules and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"  # benchmarks/waiting_threads.py


def _quieten_the_reducer() -> None:
    """Lets torch's C++ code print errors only where several processes run. Must run before torch is imported.

    Some modules leave parameters unused in some steps, so DistributedDataParallel must look for them; where it finds
    none, it says on every process that looking was in vain, in C++ that no filter of warnings reaches.
    """
    if "torch" not in sys.modules and os.environ.get("WORLD_SIZE", "1") != "1":
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def main(arguments: list[str] | None = None) -> None:
    """Entry point: user errors become one message and an exit code, anything else a traceback."""
    _wait_briefly()
    _quieten_the_reducer()
    _quieten_other_processes()
    command = as_command(sys.argv[1:] if arguments is None else arguments)
    with safe_streams() as output, printable_notes(), stop_signals() as stop, command:
        if output is not None:
            output.silent = is_another_process()
        code = _exit_code(arguments, stop)
        stop_watching()
    if output is not None and output.lost is not None:
        _show(RunError(f"standard output could not be written: {output.lost.strerror or output.lost}"))
        code = code or EXIT_FAILED
    sys.exit(code)


def _quieten_other_processes() -> None:
    """Lets only the main process print warnings: the others have the same."""
    if is_another_process() and not sys.warnoptions:
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)


def _exit_code(arguments: list[str] | None, stop: StopRequest) -> int:
    """Runs a command; prints what went wrong."""
    try:
        code = cli.main(args=arguments, prog_name="robustok", standalone_mode=False)
    except RobustokError as error:
        return _shown(error)
    except click.ClickException as error:
        if is_ours_to_say(error.format_message()):
            shown = io.StringIO()
            error.show(file=shown)
            echo_lines(shortened(shown.getvalue().rstrip("\n")), err=True)
        return error.exit_code
    except KeyboardInterrupt:
        return _interrupted()
    except click.Abort as error:
        return _aborted(error)
    except SystemExit as error:
        return _ended(error)
    except BaseException as error:  # an extension in Rust, for one, ends with what is no Exception
        if stop.asked:  # a consequence of the request: another process was faster to stop, for example
            return _interrupted()
        if (failure := _failure(error)) is not None:
            return _shown(failure)
        return _bug(error)
    return code if isinstance(code, int) else 0


def _failure(error: BaseException) -> RunError | None:
    """The message for an error that is nobody's mistake in the code; None for any other."""
    with contextlib.suppress(Exception):  # an error here must not hide the first one
        return failure_of_the_machine(error) or failed_import(error)
    return None


def _bug(error: BaseException) -> int:
    """Prints a traceback, below a line that names the plugin in whose code the error happened."""
    line = None
    end_with_a_message()
    with contextlib.suppress(Exception):  # an error here must not hide the first one
        from robustok_core.cli.blame import blamed

        line = blamed(error)
    if line is not None or num_processes() > 1:
        echo(f"{_prefix()}: {line or 'a mistake in the code'}; its traceback follows", err=True)
    echo_lines("".join(traceback.format_exception(error)).rstrip("\n"), err=True)
    return EXIT_FAILED


def _interrupted() -> int:
    if (lost := lost_peer()) is not None:  # a launcher then stops the others
        return _shown(lost.error())
    if is_ours_to_say("interrupted"):
        echo("interrupted", err=True)
    return EXIT_INTERRUPTED


def _aborted(error: click.Abort) -> int:
    """Click's Abort stands for Ctrl-C, for the end of the input in a prompt, and for any EOFError, which is a bug."""
    reason = error.__cause__ or error.__context__
    if isinstance(reason, KeyboardInterrupt):
        return _interrupted()
    if isinstance(error.__cause__, EOFError):
        return _bug(error.__cause__)
    echo("aborted", err=True)
    return EXIT_FAILED


def _ended(error: SystemExit) -> int:
    if "_ROBUSTOK_COMPLETE" in os.environ:  # how click ends the completion of a command line
        raise error
    place = traceback.extract_tb(error.__traceback__)[-1]
    what = f"a plugin or library tried to end the command with sys.exit({error.code!r})"
    return _shown(RunError(what, where=f"{place.filename}:{place.lineno}"))


def _shown(error: RobustokError) -> int:
    if isinstance(error, Interrupted) and (lost := lost_peer()) is not None:
        error = lost.error()
    if isinstance(error, LostProcessError):
        is_ours = error.lost.is_said_by(process_number())
    else:
        if not isinstance(error, Interrupted):
            end_with_a_message()
        is_ours = is_ours_to_say(str(error))
    if is_ours:
        _show(error)
    return error.exit_code


def _show(error: RobustokError) -> None:
    for problem in error.problems:
        location = f"{printable(problem.where)}: " if problem.where else ""
        echo_lines(f"{_prefix()}: {location}{_indented(problem.what)}", err=True)
        if problem.hint:
            echo_lines(f"  hint: {_indented(problem.hint)}", err=True)


def _prefix() -> str:
    number = process_number()
    return f"error on process {number}" if number else "error"


def _indented(text: str) -> str:
    """Indents all lines but the first, so that none of them looks like a message of its own."""
    return str(text).replace("\n", "\n    ")
