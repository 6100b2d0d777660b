"""The `robustok` command. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import os
import sys

import click

from robustok_core import __version__
from robustok_core.errors import EXIT_INTERRUPTED, ProblemsError, RobustokError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="robustok")
def cli() -> None:
    """Train image tokenizers for generation: latent perturbation, pFID, decoder post-training."""


def _add_commands() -> None:
    from robustok_core.cli.check import check
    from robustok_core.cli.import_ import export, import_
    from robustok_core.cli.plugins import plugins
    from robustok_core.cli.run import run

    for command in (run, check, plugins, import_, export):
        cli.add_command(command)


_add_commands()


def main(arguments: list[str] | None = None) -> None:
    """Entry point: a user's mistake is one message and an exit code, anything else a traceback."""
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
    sys.exit(code if isinstance(code, int) else 0)


def _show(error: RobustokError) -> None:
    rank = os.environ.get("RANK", "0")
    prefix = "error" if rank == "0" else f"error on process {rank}"
    problems = error.problems if isinstance(error, ProblemsError) else (error,)
    for problem in problems:
        place = f"{problem.where}: " if problem.where else ""
        click.echo(f"{prefix}: {place}{problem.what}", err=True)
        if problem.hint:
            click.echo(f"  hint: {problem.hint}", err=True)
