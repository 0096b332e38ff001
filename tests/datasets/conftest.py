from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from sifa_zoo.config import ReadConfig
from sifa_zoo.datasets.reading import read_videos
from sifa_zoo.datasets.videos import DataError


class Disk:
    """Writes what a test lays out in its folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def touch(self, *names: str) -> Path:
        """Empty files; a name that ends in `/` becomes a folder of pictures."""
        for name in names:
            path = self.root / name / "00001.jpg" if name.endswith("/") else self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return self.root

    def write(self, name: str, text: str, encoding: str = "utf-8") -> Path:
        """A text file, its newlines as given."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode(encoding))
        return path

    def refuses(self, messages: str | Sequence[str], data, split=None, class_names=None, **how) -> str:
        """Asserts that reading the data is refused with each of these messages; returns all of the text."""
        with pytest.raises(DataError) as error:
            read_videos(data, split, class_names, ReadConfig(**how))
        for message in [messages] if isinstance(messages, str) else messages:
            error.match(message)
        return str(error.value)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


@pytest.fixture
def rows(tmp_path: Path):
    """Paths below the test's folder, and the names of their classes, of a list of videos."""

    def read(videos) -> list[tuple[str, object]]:
        names = videos.class_names
        labels = [
            {names[i] for i in label.nonzero()[0]} if videos.multi_label else names[label] for label in videos.labels
        ]
        return [(str(videos.path(i).relative_to(tmp_path)), label) for i, label in enumerate(labels)]

    return read
