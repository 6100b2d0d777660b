"""Files on the Hugging Face hub, named in recipes and commands: hf://OWNER/REPOSITORY/FILE or ...FILE@REVISION."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from attrs import frozen

from robustok_core.errors import RobustokError
from robustok_core.runs.fingerprints import sha256_of
from robustok_core.runs.records import read_record
from robustok_core.runs.shard_index import ENDING, ShardIndex, shards_of
from robustok_core.values.download import Download

#: Seconds within which the hub must answer whether it has a file.
_PATIENCE = 5.0
#: One slash where a path was made of the address.
_ADDRESS = re.compile(r"hf:/{1,2}(?P<repository>[\w.-]+/[\w.-]+)/(?P<file>[^@]+?)(?:@(?P<revision>[^@]+))?")
_URL = re.compile(r"https?:/{1,2}")
_PAGE = re.compile(
    r"https?:/{1,2}(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repository>[\w.-]+/[\w.-]+)/(?:resolve|blob|raw)/"
    r"(?P<revision>[^/]+)/(?P<file>[^?#]+)(?:[?#].*)?"
)
#: The configuration that importers read beside weights.
_BESIDE = "config.json"


@frozen(kw_only=True)
class HubFile:
    """A file of a repository, at a revision (a branch, tag or commit), by default its main branch."""

    repository: str
    file: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repository}/{self.file}" + (f"@{self.revision}" if self.revision else "")

    @property
    def path(self) -> Path | None:
        """Where it is in the cache of the hub's library; None if it is not there."""
        return self._cached(self.file)

    def download(self) -> Download:
        """The file, the configuration beside it if there is one, and if it is an index, the files that it names."""
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        return Download(
            what=str(self),
            place=str(Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.repository, repo_type="model")),
            variable="HF_HOME",
            host=str(urlsplit(constants.ENDPOINT).hostname),
            instead="name a file that is here",
            present=self._present,
            probe=lambda: size_on_hub(self.repository, [self.file], self.revision),
            fetch=self._fetch,
        )

    def _cached(self, file: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repository, file, revision=self.revision)
        return Path(found) if isinstance(found, str) else None

    def _present(self) -> bool:
        path = self.path
        return path is not None and all(shard.is_file() for shard in _shards(path))

    def _fetch(self) -> None:
        """Gets the weights last, so that where they are, what belongs to them is there too."""
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        refuse_offline()
        folder = "".join(self.file.rpartition("/")[:2])
        try:
            self._get(folder + _BESIDE)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            pass  # most repositories have none
        for shard in _shards(self._get(self.file)):
            self._get(folder + shard.name)

    def _get(self, file: str) -> Path:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(self.repository, file, revision=self.revision))


def _shards(path: Path) -> list[Path]:
    return shards_of(read_record(ShardIndex, path), path) if path.name.endswith(ENDING) else []


def hub_file_of(text: str) -> HubFile | None:
    """The file that an address names; None if it is none of the hub.

    Raises:
        RobustokError: it starts like one, and names no file.
    """
    if not text.startswith("hf:/"):
        return None
    match = _ADDRESS.fullmatch(text)
    if match is None:
        hint = "hf://OWNER/REPOSITORY/FILE, and @REVISION behind it if it is not the newest"
        raise RobustokError("this names no file of the hub", where=text, hint=hint)
    return HubFile(**match.groupdict())


def is_there(text: str) -> bool:
    """Whether the file or folder that a path or an address names is on this machine."""
    file = hub_file_of(text)
    return Path(text).exists() if file is None else file.download().present()


def local_path(text: str, where: str | None) -> Path:
    """The path that a text names. A file of the hub is downloaded, unless it is there, and checked.

    Args:
        text: a path, or the address of a file of the hub. where: what names it, for messages.

    Raises:
        RobustokError: the file cannot be had or is damaged, or the text is another address.
    """
    if _URL.match(text):
        page = _PAGE.fullmatch(text)
        hint = "download the file, and name it by its path"
        if page is not None:
            hint = f"name it as hf://{page['repository']}/{page['file']}@{page['revision']}"
        what = f"{text}: this is the address of a web page, not the path of a file"
        raise RobustokError(what, where=where, hint=hint)
    file = hub_file_of(text)
    if file is None:
        return Path(text)
    download = file.download()
    download.require(where)
    download.get(where)
    path = file.path
    assert path is not None
    _check_hash(path)
    return path


def _check_hash(path: Path) -> None:
    """Raises RobustokError if a file in the cache has not the hash that the hub gave for it, where it gave one."""
    hashed = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", hashed) and sha256_of(path) != hashed:
        what = "this file of the hub's cache is damaged: its content does not have the hash that the hub gave for it"
        raise RobustokError(what, where=str(path), hint=f"delete {path.resolve()}; it is downloaded again")


def pinned(path: Path) -> HubFile | None:
    """The file of the hub, with its commit, that a path in the cache is; None if it is another file."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).absolute()
    if not path.absolute().is_relative_to(cache) or len(parts := path.absolute().relative_to(cache).parts) < 4:
        return None
    repository, snapshots, commit, *inner = parts
    kind, *names = repository.split("--")
    if kind != "models" or snapshots != "snapshots" or len(names) != 2:
        return None
    return HubFile(repository="/".join(names), file="/".join(inner), revision=commit)


def refuse_offline() -> None:
    """Raises ConnectionError if the user forbids the use of the hub."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE is set")


def size_on_hub(repository: str, names: Sequence[str], revision: str | None = None) -> int | None:
    """The size in bytes of the first of these files that a repository has.

    Raises:
        FileNotFoundError: it has none, or the hub does not show them. Another exception: the hub does not answer.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    refuse_offline()
    for name in names:
        try:
            with naming_what_is_missing(f"repository {repository}", revision):
                return get_hf_file_metadata(hf_hub_url(repository, name, revision=revision), timeout=_PATIENCE).size
        except EntryNotFoundError:
            continue
    raise FileNotFoundError(f"{repository} has no file {' or '.join(names)}")


@contextmanager
def naming_what_is_missing(what: str, revision: str | None) -> Iterator[None]:
    """Raises FileNotFoundError if the hub answers that it does not have this, or does not give it to this user."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except GatedRepoError as error:
        raise FileNotFoundError("its licence must be accepted there, and HF_TOKEN set") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(f"it has no {what}, or it is private") from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"the {what} has no revision {revision!r}") from error
