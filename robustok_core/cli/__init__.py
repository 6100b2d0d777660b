"""The `robustok` command. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint, entry_points

import click

from robustok_core import __version__
from robustok_core.errors import EXIT_INTERRUPTED, ProblemsError, RobustokError

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
                return point.load()
            except Exception as error:  # one broken package must not disable the other commands
                return _broken(name, f"{type(error).__name__}: {error}")
        return None


def _broken(name: str, reason: str) -> click.Command:
    def refuse() -> None:
        raise RobustokError(f"the command {name!r} failed to load: {reason}")

    return click.Command(name, callback=refuse, short_help=f"Failed to load: {reason}")


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


def main(arguments: list[str] | None = None) -> None:
    """Entry point: user errors become one message and an exit code, anything else a traceback."""
    _wait_briefly()
    try:
        code = cli.main(args=arguments, prog_name="robustok", standalone_mode=False)
    except RobustokError as error:
        _show(error)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        from robustok_core.cli.blame import blamed

        if (line := blamed(error)) is not None:
            click.echo(f"error: {line}; its traceback follows", err=True)
        raise
    sys.exit(code if isinstance(code, int) else 0)


def _show(error: RobustokError) -> None:
    rank = os.environ.get("RANK", "0")
    prefix = "error" if rank == "0" else f"error on process {rank}"
    problems = error.problems if isinstance(error, ProblemsError) else (error,)
    for problem in problems:
        location = f"{problem.where}: " if problem.where else ""
        click.echo(f"{prefix}: {location}{problem.what}", err=True)
        if problem.hint:
            click.echo(f"  hint: {problem.hint}", err=True)
