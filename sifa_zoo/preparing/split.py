"""Sets videos of each class aside for validation; the files stay where they are."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np

from sifa_zoo.datasets.videos import DataError, VideoList
from sifa_zoo.preparing.digests import digests


def split_videos(videos: VideoList, *, val_share: float, seed: int = 0, workers: int = 1) -> dict[str, VideoList]:
    """Draws validation videos from every class that has at least two.

    Args:
        videos: What to split; one class each.
        val_share: Share of each class that goes to validation, in (0, 1); at least one video, but never all.
        seed: Another seed draws other videos.
        workers: Files read at a time, to find those with the same bytes, which stay in one split.

    Returns:
        `train` and `val`, each in the order of `videos`.

    Raises:
        DataError: If the videos have several labels each, or no class can spare one.
        ValueError: If `val_share` is out of range.
    """
    if not 0 < val_share < 1:
        raise ValueError(f"val_share must be in (0, 1), got {val_share}")
    if videos.multi_label:
        raise DataError("videos with several labels each cannot be split class by class; write lists for them")
    contents = digests(videos.paths, workers=workers)
    generator = random.Random(seed)
    in_val = np.zeros(len(videos), dtype=bool)
    for label in range(len(videos.class_names)):
        groups = defaultdict(list)
        for place in np.flatnonzero(videos.labels == label).tolist():
            path = videos.paths[place]
            groups[contents.get(path, path)].append(place)
        drawn = sorted(groups.values())
        generator.shuffle(drawn)
        count = min(len(drawn) - 1, max(1, round(val_share * len(drawn))))
        in_val[[place for group in drawn[: max(0, count)] for place in group]] = True
    if not in_val.any():
        raise DataError("no class has two different videos, so none can be set aside for validation")
    return {"train": videos.subset(~in_val), "val": videos.subset(in_val)}
