"""Downloads from the Hugging Face hub, and of files that torch keeps in its own folder."""

from __future__ import annotations

import re
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from robustok_core.runs.hub import naming_what_is_missing, refuse_offline, size_on_hub
from robustok_core.values.download import Download

#: Seconds within which a host must answer whether it has a file.
_PATIENCE = 5.0
#: The name of a commit on the hub.
_COMMIT = re.compile(r"[0-9a-f]{40}")


def torch_file(url: str, *, what: str, instead: str, hash_begins: str, size: int | None = None) -> Download:
    """A file that torch.hub keeps in its folder, which TORCH_HOME moves.

    Args:
        url: its address. hash_begins: of its SHA-256. For the others see `Download`.
    """
    file = torch_hub_file(url)

    def fetch() -> None:
        import torch

        file.parent.mkdir(parents=True, exist_ok=True)
        progress = sys.stderr.isatty()
        torch.hub.download_url_to_file(url, str(file), hash_prefix=hash_begins, progress=progress)

    return Download(
        what=what,
        place=str(file),
        variable="TORCH_HOME",
        host=str(urlsplit(url).hostname),
        instead=instead,
        present=file.is_file,
        probe=lambda: _size_at(url),
        fetch=fetch,
        size=size,
    )


def torch_hub_file(url: str) -> Path:
    """Where torch keeps the file of a URL."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def _size_at(url: str) -> int | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_PATIENCE) as answer:
            length = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            raise FileNotFoundError(f"it answers {error.code} for {url}") from error
        return None  # the host is there, but some refuse this kind of question
    return int(length) if length and length.isdigit() else None


def hub_file(repository: str, names: Sequence[str], *, what: str, instead: str) -> Download:
    """A file of a repository on the hub, under the first of several names that it has.

    Args:
        repository: "OWNER/NAME". names: best first. For the others see `Download`.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Download(
        what=what,
        place=str(Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")),
        variable="HF_HOME",
        host=str(urlsplit(constants.ENDPOINT).hostname),
        instead=instead,
        present=lambda: any(_is_cached(repository, name) for name in names),
        probe=lambda: size_on_hub(repository, names),
        fetch=lambda: _fetch_from_hub(repository, names),
    )


def _is_cached(repository: str, name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, name), str)


def _fetch_from_hub(repository: str, names: Sequence[str]) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    refuse_offline()
    for name in names:
        try:
            hf_hub_download(repository, name)
            return
        except EntryNotFoundError:
            continue
    raise FileNotFoundError(f"{repository} has no file {' or '.join(names)}")


def hub_dataset(path: str, name: str | None, revision: str | None) -> Download:
    """A data set on the hub, as the `datasets` library prepares it in its own cache.

    Args:
        path: "OWNER/NAME". name: of its configuration. revision: commit or tag.
    """
    import datasets
    from huggingface_hub import constants

    *owner, own_name = path.split("/")
    folder = Path(datasets.config.HF_DATASETS_CACHE).joinpath("___".join([*owner, _snake_case(own_name)]))
    return Download(
        what=f"the data set {path}{'' if name is None else f' ({name})'}",
        place=str(folder),
        variable="HF_DATASETS_CACHE",
        host=str(urlsplit(constants.ENDPOINT).hostname),
        instead="give a local folder in `path`",
        present=lambda: any(_holds(found, path, name, revision) for found in folder.glob("*/*/*")),
        probe=lambda: _dataset_size(path, name, revision),
        fetch=lambda: open_dataset(path, name, revision),
    )


def open_dataset(path: str, name: str | None, revision: str | None) -> Any:
    """What `datasets.load_dataset` opens at a name on the hub or a folder: downloaded, or from its cache.

    With older versions of the library, a data set may come with code, which is never run.
    """
    import datasets

    return datasets.load_dataset(path, name, revision=revision, trust_remote_code=False)


def _holds(prepared: Path, path: str, name: str | None, revision: str | None) -> bool:
    """Whether a folder CONFIGURATION/VERSION/COMMIT of the cache is complete, and of this configuration and revision.

    The name of the configuration may end in a hash of 16 digits.
    """
    configuration = prepared.parent.parent.name
    if not prepared.is_dir() or prepared.suffix == ".incomplete":
        return False
    if name is not None and re.sub("-[0-9a-f]{16}$", "", configuration) != name != configuration:
        return False
    return revision is None or prepared.name == _commit(path, revision)


def _commit(path: str, revision: str) -> str | None:
    """The commit of a revision; None if that is a branch or tag of which the cache of the hub knows no commit."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    if _COMMIT.fullmatch(revision):
        return revision
    reference = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=path, repo_type="dataset"), "refs", revision)
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else None


def _snake_case(name: str) -> str:
    from datasets.naming import camelcase_to_snakecase

    return camelcase_to_snakecase(name)


def _dataset_size(path: str, name: str | None, revision: str | None) -> int | None:
    """The size of all files of a data set with one configuration; None if it has several."""
    from huggingface_hub import HfApi

    refuse_offline()
    with naming_what_is_missing(f"data set {path}", revision):
        files = HfApi().dataset_info(path, revision=revision, timeout=_PATIENCE, files_metadata=True).siblings
    return None if name is not None or files is None else sum(file.size or 0 for file in files)
