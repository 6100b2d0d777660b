"""What the components of a recipe need from outside: files to download, and local files that their options name."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import field, frozen

from robustok_core.errors import RobustokError, raise_all
from robustok_core.kinds.stage import tables_of
from robustok_core.recipe.recipe import LoadConfig, NamedStage, ResolvedRecipe, located
from robustok_core.recipe.structurer import Path as KeyPath
from robustok_core.recipe.structurer import Problem
from robustok_core.runs.hub import hub_file_of
from robustok_core.values.download import Download
from robustok_core.values.spec import Spec
from robustok_core.values.wording import reason_of

#: The error of a problem, located where the user can mend it.
Locate = Callable[[Problem], RobustokError]

#: What is below the exceptions of every client library if a host does not answer.
_UNREACHABLE = (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError)
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)


@frozen(kw_only=True)
class Need:
    """A download, and the path of keys of the first component that needs it."""

    download: Download
    path: KeyPath


@frozen(kw_only=True)
class Needs:
    """What is not there yet.

    Attributes:
        downloads: each once.
        problems: local files that do not exist, and components that cannot say what they need.
        locate: see `Locate`.
    """

    downloads: Sequence[Need]
    problems: Sequence[RobustokError]
    locate: Locate = field(eq=False)

    def announced(self, say: Callable[[str], None]) -> list[RobustokError]:
        """Asks the hosts, and says a line for each download that can be had; returns an error for all else."""
        problems = list(self.problems)
        for need, size, reason in _probed(self.downloads):
            if reason is None:
                say(f"will download: {need.download.describe(size)}")
            else:
                problems.append(self._refusal(need, reason))
        return problems

    def fetch(self, say: Callable[[str], None]) -> list[RobustokError]:
        """Downloads everything, whatever fails; returns an error for each that failed."""
        problems = []
        for number, (need, size, reason) in enumerate(_probed(self.downloads), start=1):
            say(f"downloading {number} of {len(self.downloads)}: {need.download.describe(size)}")
            failed = _failure(need.download) if reason is None else reason
            if failed is not None:
                problems.append(self._refusal(need, failed))
                say(f"failed: {failed}")
        return problems

    def _refusal(self, need: Need, reason: str) -> RobustokError:
        error = need.download.refusal(reason, None)
        return self.locate(Problem(need.path, error.what, error.hint))


def needs_of(
    specs: Iterable[tuple[KeyPath, Spec]], locate: Locate, files: Iterable[tuple[KeyPath, Download]] = ()
) -> Needs:
    """What components need, and those that they build in turn, with their paths of keys; nothing is built.

    Args:
        specs: the components. locate: see `Locate`. files: needed besides.
    """
    downloads = {file.what: Need(download=file, path=path) for path, file in files if not file.present()}
    problems: list[RobustokError] = []
    for path, spec in with_parts(specs):
        try:
            for download in _downloads_of(spec):
                if download.what not in downloads and not download.present():
                    downloads[download.what] = Need(download=download, path=path)
        except RobustokError as error:
            problems += [locate(Problem(path, each.what, each.hint)) for each in error.problems]
    return Needs(downloads=list(downloads.values()), problems=problems, locate=locate)


def provide(specs: Mapping[str, Spec], say: Callable[[str], None]) -> None:
    """Downloads what components need, before a command works with them.

    Args:
        specs: by the name that messages give them. say: told of each download.

    Raises:
        ProblemsError: for each file that is missing, and for each download that failed.
    """
    needs = needs_of(
        (((name,), spec) for name, spec in specs.items()),
        lambda problem: RobustokError(f"{'.'.join(map(str, problem.path))}: {problem.what}", hint=problem.hint),
    )
    raise_all(needs.problems)
    raise_all(needs.fetch(say))


def needs_of_recipe(
    recipe: ResolvedRecipe, stages: Sequence[NamedStage], tables: Sequence[str] = (), *, loaded: bool = False
) -> Needs:
    """What some stages of a recipe need, the tables and importers that they use.

    Args:
        recipe: the recipe. stages: the stages. tables: further ones. loaded: [load] is taken already.
    """
    files = [] if loaded else [(("load", name), file) for name, load in recipe.load.items() if (file := _file(load))]
    return needs_of(_specs(recipe, stages, tables), lambda problem: located(recipe.source, problem), files)


def _file(load: LoadConfig) -> Download | None:
    """The download of the file of the hub that an entry of [load] names."""
    file = hub_file_of(load.path)
    return None if file is None else file.download()


def without_repeats(error: RobustokError, missing: Sequence[RobustokError]) -> list[RobustokError]:
    """The problems in an error, without those that a component raised for a download that is `missing` already."""
    known = tuple(each.what.split(": ", 1)[-1] for each in missing)  # without the keys that `located` put before it
    return [problem for problem in error.problems if not problem.what.endswith(known)]


def _specs(
    recipe: ResolvedRecipe, stages: Sequence[NamedStage], tables: Sequence[str]
) -> Iterator[tuple[KeyPath, Spec]]:
    kinds = [stage.spec.factory for stage in stages]
    used = {*tables, *(table for kind in kinds for table in tables_of(kind))}
    read = {artifact for kind in kinds for artifact in kind.needs}
    for name, spec in recipe.tables.items():
        if name in used:
            yield (name,), spec
    for name, load in recipe.load.items():
        if load.importer is not None and name in read:
            yield ("load", name, "importer"), load.importer
    for index, stage in enumerate(recipe.stages):
        if stage in stages:
            yield ("stage", index), stage.spec


def with_parts(specs: Iterable[tuple[KeyPath, Spec]]) -> Iterator[tuple[KeyPath, Spec]]:
    """Components, and those that they build in turn, with their paths of keys."""
    for path, spec in specs:
        yield path, spec
        yield from with_parts((path + keys, part) for keys, part in spec.factory.parts(spec.config))


def _downloads_of(spec: Spec) -> Sequence[Download]:
    downloads = list(spec.factory.downloads(spec.config))
    if wrong := [value for value in downloads if not isinstance(value, Download)]:
        raise RobustokError(f"`downloads` of {spec.kind} {spec.name!r} must return Downloads, found {wrong[0]!r}")
    return downloads


def _failure(download: Download) -> str | None:
    """Downloads; returns why that failed, or None."""
    try:
        download.fetch()
    except Exception as error:  # each client library has exceptions of its own
        return reason_of(error)
    return None if download.present() else "it is not in its place after the download"


def _probed(needs: Iterable[Need]) -> Iterator[tuple[Need, int | None, str | None]]:
    """Each need with its size, or the reason why it cannot be had. A host that cannot be reached is asked once."""
    silent: dict[str, str] = {}
    for need in needs:
        host = need.download.host
        if host in silent:
            yield need, None, silent[host]
            continue
        try:
            yield need, need.download.probe(), None
        except Exception as error:  # each client library has exceptions of its own
            if _is_unreachable(error):
                silent[host] = reason_of(error)
            yield need, None, reason_of(error)


def _is_unreachable(error: BaseException | None) -> bool:
    """Whether an exception, or one that caused it, says that a host does not answer; not, that it refuses."""
    while error is not None:
        reason = getattr(error, "reason", None)  # of an URLError
        for each in (error, reason):
            if isinstance(each, _UNREACHABLE) or (isinstance(each, OSError) and each.errno in _NO_ROUTE):
                return True
        error = error.__cause__ or error.__context__
    return False
