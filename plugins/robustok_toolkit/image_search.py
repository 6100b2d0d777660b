"""Finds the image files of a folder, and says what was passed over and why."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from attrs import Factory, define, frozen

from robustok_core.errors import RobustokError

#: Endings of files that are taken for images; all are formats that Pillow decodes by itself.
EXTENSIONS = frozenset(
    f".{ending}"
    for ending in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "avif", "jp2"),
        *("bmp", "dib", "ppm", "pgm", "pbm", "pnm", "tif", "tiff", "tga"),
    )
)
EMPTY, BROKEN_LINK, NO_FILE, HIDDEN = "empty", "broken link", "pipe or device", "hidden"
READ_ALREADY = "link to a folder that is read already or holds this one"
#: Why something may be passed over although no image is lost.
HARMLESS = frozenset({HIDDEN, READ_ALREADY})


@frozen
class ImageFile:
    """A file whose ending is that of an image.

    Attributes:
        path: where it is.
        name: its path within the folder that was searched.
        size, mtime_ns: as the file system has them.
    """

    path: str
    name: str
    size: int
    mtime_ns: int


@define
class Search:
    """What a search of a folder found.

    Attributes:
        images: in the order in which they were found; the caller sorts them.
        passed_over: (path within the folder, reason) of everything else; the reason is an ending or one of the
            constants above.
    """

    images: list[ImageFile] = Factory(list)
    passed_over: list[tuple[str, str]] = Factory(list)

    @property
    def note(self) -> str | None:
        """ "8 of 11 files are read; passed over: 2 .heic, 1 empty"; None if there is nothing to say."""
        reasons = Counter(reason for _, reason in self.passed_over)
        if not reasons.keys() - {HIDDEN}:
            return None
        total = len(self.images) + len(self.passed_over)
        return f"{len(self.images)} of {total} files are read; passed over: {counted(reasons)}"


def counted(reasons: Counter[str]) -> str:
    """ "3 .heic, 1 empty": reasons with their numbers, the most frequent first."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items(), key=lambda r: (-r[1], r[0])))


def search(folder: str | os.PathLike[str]) -> Search:
    """Searches a folder and all folders in it.

    Links to files and folders are followed, but every folder is read once, and none that holds this one.
    Hidden files and folders are passed over. A file is looked up once, so that millions are cheap.

    Raises:
        RobustokError: a folder cannot be read.
    """
    found = Search()
    seen = {_identity(str(above)) for above in Path(folder).resolve().parents}
    waiting = [(os.fspath(folder), "")]
    while waiting:  # links come after all real folders, so that a picture's name is its real path if it has one
        waiting = sorted(link for path, name in waiting for link in _walk(path, name, found, seen))
    return found


def images_of_folder(folder: Path) -> Search:
    """The images in a folder and all folders in it, sorted by path.

    Raises:
        RobustokError: there are none; the message says what there is.
    """
    found = search(folder)
    if not found.images:
        note = f" ({found.note})" if found.note else ""
        hint = f"images end in {', '.join(sorted(EXTENSIONS))}"
        raise RobustokError(f"there are no images in this folder{note}", where=str(folder), hint=hint)
    found.images.sort(key=lambda image: image.name.split("/"))
    return found


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder that are not hidden, sorted.

    Raises:
        RobustokError: the folder cannot be read.
    """
    return sorted(folder / entry.name for entry in _entries(str(folder)) if _is_folder(entry) and not _hidden(entry))


def files_in(folder: Path) -> list[str]:
    """The names of the files in a folder that are not hidden, sorted.

    Raises:
        RobustokError: the folder cannot be read.
    """
    return sorted(entry.name for entry in _entries(str(folder)) if not _is_folder(entry) and not _hidden(entry))


def _walk(path: str, name: str, found: Search, seen: set[tuple[int, int]]) -> list[tuple[str, str]]:
    """Searches a folder; returns the path and name of each link to a folder instead of following it."""
    links = []
    waiting = [(path, name)]
    while waiting:
        path, name = waiting.pop()
        identity = _identity(path)
        if identity in seen:
            found.passed_over.append((name, READ_ALREADY))
            continue
        seen.add(identity)
        for entry in _entries(path):
            inside = f"{name}/{entry.name}" if name else entry.name
            if _hidden(entry):
                found.passed_over.append((inside, HIDDEN))
            elif _is_loop(entry):
                found.passed_over.append((inside, BROKEN_LINK))
            elif not entry.is_dir():
                _take(entry, inside, found)
            elif entry.is_symlink():
                links.append((entry.path, inside))
            else:
                waiting.append((entry.path, inside))
    return links


def _take(entry: os.DirEntry[str], name: str, found: Search) -> None:
    dot = entry.name.rfind(".")
    ending = entry.name[dot:].lower() if dot > 0 else "without an ending"
    reason = None if ending in EXTENSIONS else ending
    if reason is None:
        try:
            state = entry.stat()
        except OSError:
            reason = BROKEN_LINK
        else:
            reason = NO_FILE if not stat.S_ISREG(state.st_mode) else EMPTY if state.st_size == 0 else None
    if reason is None:
        found.images.append(ImageFile(entry.path, name, state.st_size, state.st_mtime_ns))
    else:
        found.passed_over.append((name, reason))


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (OSError, ValueError) as error:
        raise RobustokError(f"this folder cannot be read: {error}", where=folder) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return not _is_loop(entry) and entry.is_dir()


def _is_loop(entry: os.DirEntry[str]) -> bool:
    """Whether this is a link that leads to itself."""
    try:
        entry.is_dir()
    except OSError:
        return True
    return False


def _hidden(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".")


def _identity(folder: str) -> tuple[int, int]:
    try:
        state = Path(folder).stat()
    except OSError as error:  # a loop of links, or it is gone
        raise RobustokError(f"this folder cannot be read: {error}", where=folder) from error
    return state.st_dev, state.st_ino
