"""Finds what is wrong with the videos and labels in shards, which are read once, one sample after the other."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.shards import Sample, label_of, name_of, read_shard, video_of
from sifa_zoo.datasets.videos import DataError
from sifa_zoo.preparing.findings import Finding, about_classes
from sifa_zoo.preparing.inspection import inspect_video
from sifa_zoo.preparing.parallel_map import parallel_map, until_stopped
from sifa_zoo.video.load import VideoError


def check_shards(
    splits: Mapping[str, ShardList], *, clip: ClipConfig, workers: int, quick: bool = False
) -> Iterator[Finding]:
    """Checks each sample of the shards and then their labels; yields findings as they come, named as samples are.

    Args:
        splits: What to check. Videos in a split that an earlier one has too are found by their bytes.
        clip: How clips will be cut; videos too short for one are reported.
        workers: Shards at a time.
        quick: As for `check_files`.
    """
    first: dict[bytes, tuple[str, str]] = {}
    for split, videos in splits.items():

        def inspect(shard: str, stop: threading.Event, videos: ShardList = videos) -> list[_Seen]:
            return list(_inspect_shard(shard, stop, videos=videos, clip=clip, quick=quick))

        counts = Counter(dict.fromkeys(videos.class_names, 0))
        for _, samples in parallel_map(inspect, videos.shards, workers=workers, text=f"check {split}", unit="shard"):
            for sample in samples:
                counts.update(sample.class_names)
                other_split, other = first.setdefault(sample.digest, (split, sample.name))
                if sample.digest and other_split != split:
                    sample.found["duplicate"] = f"the same bytes as {other} in {other_split}"
                yield from (Finding(split, sample.name, kind, detail) for kind, detail in sample.found.items())
        present = [name for name, count in counts.items() if count]
        if split != "val" and len(present) < 2:
            named = ", ".join(present) or "none"
            yield Finding(split, "", "classes", f"training needs videos of at least two classes, got {named}")
        else:
            yield from about_classes(split, counts)


@dataclass
class _Seen:
    """What is known of a sample; of an unreadable shard, only what is wrong."""

    name: str
    found: dict[str, str]
    class_names: tuple[str, ...] = ()
    digest: bytes = field(default=b"", repr=False)


def _inspect_shard(
    shard: str, stop: threading.Event, *, videos: ShardList, clip: ClipConfig, quick: bool
) -> Iterator[_Seen]:
    try:
        for sample in until_stopped(read_shard(shard), stop):
            yield _inspect_sample(sample, stop, videos=videos, clip=clip, quick=quick)
    except DataError as error:
        yield _Seen(shard, {"undecodable": str(error)})


def _inspect_sample(
    sample: Sample, stop: threading.Event, *, videos: ShardList, clip: ClipConfig, quick: bool
) -> _Seen:
    seen = _Seen(name_of(sample), {})
    try:
        video = video_of(sample)
        seen.digest = hashlib.blake2b(video, digest_size=16).digest()
        seen.found = inspect_video(video, clip=clip, quick=quick, stop=stop)
    except VideoError as error:
        seen.found["undecodable"] = str(error)
    try:
        seen.class_names = (videos.class_names[videos.place(label_of(sample), seen.name)],)
    except VideoError as error:
        seen.found["unlabelled"] = str(error)
    except DataError as error:
        seen.found["unknown label"] = str(error)
    seen.found = {kind: detail.removeprefix(f"{seen.name}: ") for kind, detail in seen.found.items()}
    return seen
