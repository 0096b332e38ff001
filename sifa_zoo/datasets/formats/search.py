"""Videos that a data set names without saying where they are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from sifa_zoo.datasets.formats.labels import composed
from sifa_zoo.datasets.formats.video_files import walk_videos


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
