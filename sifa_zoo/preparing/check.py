"""Finds what is wrong with a data set before anything is trained on it. Nothing is repaired, replaced or left out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.formats.video_files import hints_for_missing, real_paths
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.videos import DataError, VideoList, check_trainable
from sifa_zoo.preparing.digests import digests
from sifa_zoo.preparing.findings import Finding, about_classes
from sifa_zoo.preparing.inspection import inspect_video
from sifa_zoo.preparing.parallel_map import parallel_dict, parallel_map
from sifa_zoo.preparing.shard_check import check_shards
from sifa_zoo.video.cache import is_cached
from sifa_zoo.video.load import VideoError, load_video


def check_splits(
    splits: Mapping[str, VideoList | ShardList], *, clip: ClipConfig, workers: int, quick: bool = False
) -> Iterator[Finding]:
    """Checks the labels and files of each split, then looks for videos in two splits; yields findings as they come.

    A file is decoded once, however often and in however many splits it is listed; its findings bear the first of them.
    Videos in shards are compared with those in other shards only.
    """
    lists = {split: videos for split, videos in splits.items() if isinstance(videos, VideoList)}
    shards = {split: videos for split, videos in splits.items() if isinstance(videos, ShardList)}
    for split, videos in lists.items():
        yield from check_labels(videos, split)
        for path in dict.fromkeys(videos.missing):
            yield Finding(split, path, "missing", "; ".join(["no such file", *hints_for_missing([path])]))
    checked: set[str] = set()
    for split, videos in lists.items():
        paths = videos.paths.tolist()
        new: dict[str, str] = {}
        for file, path in zip(real_paths(paths), paths, strict=True):
            if file not in checked:
                new.setdefault(file, path)
        yield from check_files(list(new.values()), split, clip=clip, workers=workers, quick=quick)
        checked |= new.keys()
    yield from check_duplicates(lists, workers=workers)
    yield from check_shards(shards, clip=clip, workers=workers, quick=quick)


def check_files(
    paths: Sequence[str], split: str, *, clip: ClipConfig, workers: int, quick: bool = False
) -> Iterator[Finding]:
    """Decodes every video from its first frame to its last, and yields findings as they come.

    Args:
        paths: What to check.
        split: The name of their split, for the findings.
        clip: How clips will be cut; videos too short for one are reported.
        workers: Videos at a time.
        quick: Read every packet, but decode no more than numbering frames needs: misses damage further on.
    """

    def inspect(path: str, stop: threading.Event) -> dict[str, str]:
        return inspect_video(path, clip=clip, quick=quick, stop=stop)

    for path, found in parallel_map(inspect, paths, workers=workers, text=f"check {split}"):
        for kind, detail in found.items():
            yield Finding(split, path, kind, detail.removeprefix(f"{path}: "))


def find_undecodable(videos: VideoList, *, workers: int) -> dict[str, str]:
    """Decodes the first frame of each video without a cached index; `path: reason` by path for each that fails."""
    return parallel_dict(_why_undecodable, list(videos.paths), workers=max(1, workers), text="check videos")


def check_labels(videos: VideoList, split: str) -> list[Finding]:
    """Finds too few classes to train, and what `about_classes` finds."""
    try:
        check_trainable(videos)
    except DataError as error:
        if split != "val":
            return [Finding(split, "", "classes", str(error))]
    return about_classes(split, dict(zip(videos.class_names, videos.counts.tolist(), strict=True)))


def check_duplicates(splits: Mapping[str, VideoList], *, workers: int) -> list[Finding]:
    """Finds videos with the same bytes as one in an earlier split. Only files of equal size are read."""
    rows = [(split, path) for split, videos in splits.items() for path in videos.paths]
    contents = digests([path for _, path in rows], workers=workers) if len(splits) > 1 else {}
    findings = []
    first: dict[bytes | str, tuple[str, str]] = {}
    for split, path in dict.fromkeys(rows):
        other_split, other = first.setdefault(contents.get(path, path), (split, path))
        if other_split != split:
            findings.append(Finding(split, path, "duplicate", f"the same bytes as {other} in {other_split}"))
    return findings


def _why_undecodable(path: str, _stop: threading.Event) -> str | None:
    try:
        if os.path.isdir(path) or not is_cached(path):
            load_video(path, [0])
    except VideoError as error:
        return str(error)
    return None
