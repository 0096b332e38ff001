"""Reads data that a user names: a list of videos, or shards."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sifa_zoo.config import ReadConfig
from sifa_zoo.datasets.formats.read import has_shards, read_videos
from sifa_zoo.datasets.shard_list import FORMAT, ShardList, find_shards
from sifa_zoo.datasets.videos import VideoList


def read_videos_or_shards(
    data: str | os.PathLike[str],
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    how: ReadConfig = ReadConfig(),
) -> VideoList | ShardList:
    """Finds the shards that `data` names, if it names any or the format is "webdataset"; otherwise reads the videos.

    Args:
        data: As for `read_videos`, or for `find_shards`.
        split: As for `read_videos`.
        class_names: As for `read_videos`.
        how: As for `read_videos`; the format may also be "webdataset".

    Raises:
        DataError: As from `read_videos`, `find_shards` and `ShardList`.
        LibraryError: If shards need a library that is not installed.
        ValueError: If an argument is out of range, or missing videos are allowed for shards.
    """
    if how.format != FORMAT and (how.format is not None or not has_shards(data)):
        return read_videos(data, split, class_names, how)
    if how.allow_missing:
        raise ValueError("allow_missing is for lists: shards name no video that they do not hold")
    return ShardList(find_shards(data, split), class_names, remap=how.remap)
