"""`robustok push`."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import click

from robustok_core.values.terminal import echo

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--generator", is_flag=True, help="Upload the generator, with its tokenizer in the folder tokenizer.")
@click.option("--to", type=click.Path(path_type=Path), help="Write to this new folder instead of uploading.")
@click.option("--licence", metavar="ID", help="Licence of the weights, as the hub calls it: apache-2.0, mit, ...")
@click.option("--private", is_flag=True, help="Upload to a private repository; a new one is made so.")
def push(run: Path, repository: str, generator: bool, to: Path | None, licence: str | None, private: bool) -> None:
    """Upload the tokenizer of a RUN, or of its folder, to OWNER/NAME on the Hugging Face hub.

    The repository gets the weights, config.json, the recipe, and a model card with what it was trained on and what was
    measured; the recipe names paths as it was run with them. These replace what an earlier push wrote; other files of
    the repository stay. `robustok.from_pretrained("OWNER/NAME")` loads it. With
    --generator, or if RUN is the folder of a generator, the generator is uploaded with its tokenizer.

    Example: `robustok push runs/main_train me/tokenizer --to folder` to see it before.
    """
    from functools import partial

    from robustok_core.recipe.registry import load_registry
    from robustok_core.runs.components import read_artifact
    from robustok_core.runs.folder import is_artifact
    from robustok_core.runs.near_runs import no_run
    from robustok_toolkit.new_files import new_output, require_new
    from robustok_toolkit.pushed import Kind, write_repository

    if to is not None and private:
        raise click.UsageError("--to writes a folder and uploads nothing; leave out --private.")
    _check_name(repository)
    if not run.exists():
        raise no_run(run)
    generator = generator or (is_artifact(run) and read_artifact(run).kind == "generator")
    kind: Kind = "generator" if generator else "tokenizer"
    write = partial(write_repository, run, kind=kind, repository=repository, licence=licence, registry=load_registry())
    if to is not None:
        require_new(to)
        with new_output(to) as unfinished:
            write(unfinished)
        echo(f"written to {to}")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "repository"
        write(folder)
        echo(f"uploaded to {_upload(folder, repository, private)}")


def _check_name(repository: str) -> None:
    from robustok_core.errors import RobustokError

    if not _REPOSITORY.fullmatch(repository):
        raise RobustokError("this is not the name of a repository", where=repository, hint="expected OWNER/NAME")


def _upload(folder: Path, repository: str, private: bool) -> str:
    """Uploads a folder; returns its address."""
    from huggingface_hub import HfApi

    from robustok_core.errors import RobustokError, RunError
    from robustok_core.values.wording import reason_of
    from robustok_toolkit.pushed import STALE_FILES

    api = HfApi(library_name="robustok")
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.repo_info(repository).private:
            hint = "make it private on the hub, or choose another name; without --private it is uploaded as it is"
            raise RobustokError("this repository exists already, and is public", where=repository, hint=hint)
        return str(
            api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                commit_message="Upload with robustok push",
                delete_patterns=list(STALE_FILES),  # of these, the hub's client deletes what is not uploaded
            )
        )
    except RobustokError:
        raise
    except Exception as error:  # the hub's client raises many types
        what = f"cannot upload: {reason_of(error)}"
        hint = "`hf auth login` gives access to the hub; --to FOLDER writes what would be uploaded"
        raise RunError(what, where=repository, hint=hint) from error
