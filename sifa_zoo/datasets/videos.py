"""Labelled videos: the paths, labels and class names of a data set, small in memory however long it is."""

from __future__ import annotations

import os
from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np

_MOST_LISTED = 20


class DataError(ValueError):
    """Videos or labels that cannot be used; the message names them and says what to do."""


class VideoList:
    """Videos with labels, as arrays: a million rows take about 60 MB, which the processes that decode share.

    Args:
        paths: Video files, or folders of pictures.
        labels: Integers `(N,)`, places in `class_names`; or booleans `(N, num_classes)` where a video may have several
            classes or none.
        class_names: The classes, in the order of the model's head.
        format: What the videos were read from, in words.
        missing: Videos that the data set names but lacks, left out on request.

    Raises:
        DataError: If a path is not in UTF-8.
        ValueError: If a path has no label, or a label is out of range.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]] | np.ndarray,
        labels: Sequence[int] | np.ndarray,
        class_names: Sequence[str],
        *,
        format: str = "",
        missing: Sequence[str] = (),
    ) -> None:
        labels = np.asarray(labels)
        if len(paths) != len(labels):
            raise ValueError(f"expected a label for each path, got {len(paths)} and {len(labels)}")
        if labels.ndim == 2 and labels.shape[1] != len(class_names):
            raise ValueError(f"expected {len(class_names)} labels in a row, got {labels.shape[1]}")
        if labels.ndim == 1 and len(labels) and not 0 <= labels.min() <= labels.max() < len(class_names):
            raise ValueError(f"labels must be in [0, {len(class_names)}), got {sorted(set(labels.tolist()))}")
        try:
            self.paths = np.array(list(map(os.fspath, paths)), dtype=np.dtypes.StringDType())
        except UnicodeEncodeError as error:
            raise DataError(f"a name that is not in UTF-8: {error.object!r}; rename the file") from error
        self.labels = labels.astype(bool if labels.ndim == 2 else np.int64)
        self.class_names = tuple(class_names)
        self.format = format
        self.missing = tuple(missing)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def num_missing(self) -> int:
        """Number of videos that the data set names but lacks."""
        return len(self.missing)

    @property
    def multi_label(self) -> bool:
        """Whether a video may have several classes or none."""
        return self.labels.ndim == 2

    @property
    def counts(self) -> np.ndarray:
        """Videos per class, int64 `(num_classes,)`."""
        if self.multi_label:
            return self.labels.sum(0)
        return np.bincount(self.labels, minlength=len(self.class_names))

    def subset(self, chosen: np.ndarray) -> VideoList:
        """The videos that an array of places or booleans selects."""
        return VideoList(self.paths[chosen], self.labels[chosen], self.class_names, format=self.format)

    def without(self, paths: Set[str]) -> VideoList:
        """All videos but these, which then count as missing."""
        keep = np.array([path not in paths for path in self.paths], dtype=bool)
        missing = [*self.missing, *self.paths[~keep].tolist()]
        return VideoList(self.paths[keep], self.labels[keep], self.class_names, format=self.format, missing=missing)

    def with_classes(self, class_names: Sequence[str]) -> VideoList:
        """The same videos, with the same classes in another order."""
        order = [self.class_names.index(name) for name in class_names]
        labels = self.labels[:, order] if self.multi_label else np.argsort(order)[self.labels]
        return VideoList(self.paths, labels, class_names, format=self.format, missing=self.missing)

    def as_multi_label(self) -> VideoList:
        """The same videos, with labels as booleans `(N, num_classes)`."""
        if self.multi_label:
            return self
        labels = np.arange(len(self.class_names)) == self.labels[:, None]
        return VideoList(self.paths, labels, self.class_names, format=self.format, missing=self.missing)

    def path(self, index: int) -> Path:
        """The video at a place in the list."""
        return Path(self.paths[index])


def check_trainable(videos: VideoList) -> None:
    """Refuses videos that there is nothing to learn from.

    Raises:
        DataError: If they are of fewer than two classes.
    """
    present = [name for name, count in zip(videos.class_names, videos.counts, strict=True) if count]
    if len(present) < 2 and not (videos.multi_label and present):
        names = ", ".join(present) or "none"
        raise DataError(f"training needs videos of at least two classes, got {len(present)}: {names}")


def names_alike(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Those of the names that differ from others in upper and lower case only, together with these."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.casefold(), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def few(items: Sequence[str]) -> str:
    """The first twenty items, and how many more there are."""
    more = f" and {len(items) - _MOST_LISTED} more" if len(items) > _MOST_LISTED else ""
    return ", ".join(items[:_MOST_LISTED]) + more
