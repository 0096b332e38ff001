"""Videos on disk, files and folders of pictures, found with one look at each folder."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sifa_zoo.datasets.formats.labels import composed
from sifa_zoo.datasets.videos import DataError
from sifa_zoo.video.picture_folder import PICTURE_SUFFIXES

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".m2v", ".ts", ".mts", ".m2ts", ".vob"),
    *(".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".gif", ".h264", ".h265", ".divx"),
)
# Up to so many files of a folder are looked up one by one; for more, the whole folder is read, which may be large.
_FEW = 64


def entries_of(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """The entries of a folder by name, without hidden ones.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder {os.fspath(folder)}: {error.strerror}") from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link that leads nowhere, or in a circle, is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_video(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file with a video's suffix, or a folder of pictures."""
    if entry.name.lower().endswith(VIDEO_SUFFIXES) and _is_file(entry):
        return True
    return is_folder(entry) and holds_pictures(entry.path)


def holds_pictures(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder has pictures and no video files, so that its pictures are the frames of one video."""
    try:
        names = [name.lower() for name in os.listdir(folder) if not name.startswith(".")]
    except OSError:
        return False
    has_pictures = any(name.endswith(PICTURE_SUFFIXES) for name in names)
    return has_pictures and not any(name.endswith(VIDEO_SUFFIXES) for name in names)


def walk_videos(folder: str | os.PathLike[str], *, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Paths of all videos below a folder, at any depth; links are followed, but not in circles."""
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries_of(folder):
        if is_video(entry):
            yield entry.path
        elif is_folder(entry):
            yield from walk_videos(entry.path, above=above | {here})


def videos_by_stem(folder: Path) -> dict[str, list[str]]:
    """Paths of all videos below a folder, by file name without suffix, in Unicode's composed form."""
    found: dict[str, list[str]] = {}
    for path in walk_videos(os.path.abspath(folder)):
        name = path.rpartition("/")[2]
        stem = os.path.splitext(name)[0]
        found.setdefault(composed(stem), []).append(path)
    return found


def find_in_class(by_stem: Mapping[str, Sequence[str]], class_name: str, stem: str) -> str | None:
    """The video of this name, with any suffix, in the folder of a class."""
    paths = by_stem.get(composed(stem), ())
    return next((path for path in paths if path.rpartition("/")[0].rpartition("/")[2] == class_name), None)


def existing_videos(paths: Sequence[str]) -> list[str | None]:
    """The path of each video as it is spelt on disk; None where there is no such video.

    Names that differ only in how Unicode composes their letters (NFC, NFD) count as the same.
    """
    folders: dict[str, list[int]] = {}
    for place, path in enumerate(paths):
        folder = path.rpartition("/")[0]
        if (places := folders.get(folder)) is None:
            places = folders[folder] = []
        places.append(place)
    found: list[str | None] = [None] * len(paths)
    for folder, places in folders.items():
        names = _names_in(folder) if len(places) > _FEW else frozenset()
        start = len(folder) + 1
        for place in places:
            path = paths[place]
            found[place] = path if path[start:] in names or _exists(path) else _respelt(path)
    return found


def hints_for_missing(names: Sequence[str], folder: str | os.PathLike[str] = "") -> list[str]:
    """What names that do not exist below the folder of their list may mean: URLs, or paths as Windows writes them."""
    hints = []
    if any("://" in name for name in names):
        hints.append("URLs are not opened: download the videos, and list their files")
    if windows := [name for name in names if "\\" in name]:
        there = [name for name in (n.replace("\\", "/") for n in windows[:_FEW]) if _exists(os.path.join(folder, name))]
        hints.append("folders are separated by /, not by \\" + (f": {there[0]} is there" if there else ""))
    return hints


def real_paths(paths: Sequence[str]) -> list[str]:
    """Paths that can be compared: without links or `..` in their folders. Links to videos stay links.

    Each folder is resolved once.
    """
    folders = dict.fromkeys(path.rpartition("/")[0] for path in paths)
    real = {folder: os.path.realpath(folder or "/").rstrip("/") for folder in folders}
    if all(folder == target for folder, target in real.items()):
        return list(paths)
    return [f"{real[folder]}/{name}" for folder, _, name in (path.rpartition("/") for path in paths)]


def _names_in(folder: str) -> frozenset[str]:
    """Names of the files in a folder; none if there is no such folder."""
    try:
        with os.scandir(folder or "/") as entries:
            return frozenset([entry.name for entry in entries if _is_file(entry)])
    except OSError:
        return frozenset()


def _respelt(path: str) -> str | None:
    """The video under the spelling that the disk has for its path."""
    other = None if path.isascii() else _spelling_on_disk(path)
    return other if other and _exists(other) else None


def _exists(path: str) -> bool:
    return os.path.isfile(path) or (os.path.isdir(path) and holds_pictures(path))


def _spelling_on_disk(path: str) -> str | None:
    """The path with each name composed as it is on disk."""
    if os.path.exists(path):
        return path
    folder, _, name = path.rpartition("/")
    parent = _spelling_on_disk(folder) if folder else "/"
    if parent is None:
        return None
    wanted = unicodedata.normalize("NFC", name)
    try:
        names = os.listdir(parent)
    except OSError:
        return None
    return next((f"{parent.rstrip('/')}/{n}" for n in names if unicodedata.normalize("NFC", n) == wanted), None)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link in a circle
        return False
