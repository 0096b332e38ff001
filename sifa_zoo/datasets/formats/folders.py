"""Class folders: `CLASS/VIDEO`, with or without folders `train` and `val` above them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sifa_zoo.datasets.formats.labels import composed
from sifa_zoo.datasets.formats.rows import Rows, Wish
from sifa_zoo.datasets.formats.splits import ANY, SPLIT_NAMES, SPLITS, pick_split
from sifa_zoo.datasets.formats.video_files import VIDEO_SUFFIXES, entries_of, holds_pictures, is_folder, is_video
from sifa_zoo.datasets.videos import DataError, few


def split_folders(data: Path) -> dict[str, Path]:
    """Folders by split. A folder of videos is a class, even if it has the name of a split."""
    found = {}
    for split, names in SPLITS.items():
        folders = (data / name for name in names if (data / name).is_dir())
        if folder := next(filter(_holds_class_folders, folders), None):
            found[split] = folder
    return found


class ClassFolders:
    """A folder per class with its videos directly inside: files, or folders of pictures.

    Classes are sorted by name, videos by path; other files are ignored. A folder `train` without folders inside is a
    class of that name, not a split.
    """

    name = "folders"
    title = "class folders"
    expected = "CLASS/VIDEO, or train/CLASS/VIDEO and val/CLASS/VIDEO"

    def find(self, data: Path) -> dict[str, Path]:
        """The folder, if one inside, or inside a split, holds videos."""
        if not data.is_dir():
            return {}
        roots = [data, *_named_like_splits(data)]
        folders = (entry for root in roots for entry in entries_of(root) if is_folder(entry))
        return {ANY: data} if any(any(map(is_video, entries_of(folder.path))) for folder in folders) else {}

    def read(self, data: Path, wish: Wish) -> Rows:
        """Reads the folders.

        Raises:
            DataError: If there are no class folders, one has no videos, or one is not among the given classes.
        """
        if not data.is_dir():
            raise DataError(f"no such folder: {data}")
        found = split_folders(data)
        named = _named_like_splits(data)
        if not found and named and all(path in named for path in data.iterdir() if path.is_dir()):
            raise DataError(f"{named[0]} holds no class folders; expected {named[0]}/CLASS/VIDEO")
        if not found:
            return _read(data)
        missing = () if wish.split is None or wish.split in found else SPLITS[wish.split]
        if bare := [path for path in named if path.name in missing]:
            raise DataError(f"{bare[0]} holds no class folders; expected {bare[0]}/CLASS/VIDEO")
        return _read(pick_split(data, found, wish.split))


def _named_like_splits(data: Path) -> list[Path]:
    return [data / name for name in SPLIT_NAMES if (data / name).is_dir()]


def _holds_class_folders(folder: Path) -> bool:
    return any(is_folder(entry) and not holds_pictures(entry.path) for entry in entries_of(folder))


def _read(root: Path) -> Rows:
    folders = [entry for entry in entries_of(root) if is_folder(entry)]
    if not folders:
        raise DataError(
            f"no class folders in {root}; expected {root}/CLASS/VIDEO, or name a list of `path label` lines"
        )
    _refuse_names(root, [folder.name for folder in folders])
    paths, labels, empty = [], [], []
    for folder in folders:
        videos = [entry.path for entry in entries_of(folder.path) if is_video(entry)]
        paths += videos
        labels += [composed(folder.name)] * len(videos)
        if not videos:
            empty.append(folder.name)
    if not paths:
        raise DataError(f"no videos in the class folders of {root}; known are {', '.join(VIDEO_SUFFIXES)}")
    if empty:
        raise DataError(f"class folders of {root} without videos: {few(empty)}; fill or remove them")
    numbers, title = range(len(paths)), ClassFolders.title
    return Rows(root, numbers, paths, labels, format=title, names=paths, are_names=True, unit="")


def _refuse_names(root: Path, names: list[str]) -> None:
    """Refuses class names that a list could not hold, or that a list would make one of two."""
    if wrong := [name for name in names if name != name.strip() or set(name) & set("\n\r\t")]:
        listed = few([repr(name) for name in wrong])
        raise DataError(
            f"class folders of {root} with white space around their names, or line breaks or tabs in them: {listed}; "
            "rename them"
        )
    count = Counter(map(composed, names))
    if alike := [name for name in names if count[composed(name)] > 1]:
        raise DataError(
            f"class folders of {root} whose names differ only in how Unicode composes their letters: {few(alike)}; "
            "put their videos into one, or rename them"
        )
