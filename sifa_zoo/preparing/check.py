"""Finds what is wrong with a data set before anything is trained on it. Nothing is repaired, replaced or left out."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.videos import DataError, VideoList, check_trainable
from sifa_zoo.files import csv_bytes
from sifa_zoo.preparing.digests import digests
from sifa_zoo.preparing.parallel_map import parallel_dict, parallel_map, until_stopped
from sifa_zoo.video.cache import is_cached
from sifa_zoo.video.container import find_file, frames_in_order, open_video
from sifa_zoo.video.load import VideoError, VideoInfo, load_video, video_info

# Kind of finding -> whether it stops training.
KINDS = {
    "classes": True,
    "missing": True,
    "undecodable": True,
    "no times": True,
    "damaged": False,
    "cut off": False,
    "short": False,
    "variable rate": False,
    "rotated": False,
    "duplicate": False,
    "labels": False,
}
_IMBALANCE = 10  # the largest class has more than so many times the videos of a small one


@dataclass(frozen=True)
class Finding:
    """Something to know about a video, or with an empty path about a whole split."""

    split: str
    path: str
    kind: str
    detail: str

    @property
    def fatal(self) -> bool:
        """Whether it stops training."""
        return KINDS[self.kind]

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


def check_splits(
    splits: Mapping[str, VideoList], *, clip: ClipConfig, workers: int, quick: bool = False
) -> Iterator[Finding]:
    """Checks the labels and files of each split, then looks for videos in two splits; yields findings as they come."""
    for split, videos in splits.items():
        yield from check_labels(videos, split)
        yield from (Finding(split, path, "missing", "no such file") for path in videos.missing)
    for split, videos in splits.items():
        yield from check_files(videos, split, clip=clip, workers=workers, quick=quick)
    yield from check_duplicates(splits, workers=workers)


def check_files(
    videos: VideoList, split: str, *, clip: ClipConfig, workers: int, quick: bool = False
) -> Iterator[Finding]:
    """Decodes every video from its first frame to its last, and yields findings as they come.

    Args:
        videos: What to check.
        split: The name of their split, for the findings.
        clip: How clips will be cut; videos too short for one are reported.
        workers: Videos at a time.
        quick: Read every packet, but decode only the first frame: much faster, but misses damage further on.
    """
    inspect = partial(_inspect, split=split, clip=clip, quick=quick)
    for _, findings in parallel_map(inspect, list(videos.paths), workers=workers, text=f"check {split}"):
        yield from findings


def find_undecodable(videos: VideoList, *, workers: int) -> dict[str, str]:
    """Decodes the first frame of each video without a cached index; `path: reason` by path for each that fails."""
    return parallel_dict(_why_undecodable, list(videos.paths), workers=max(1, workers), text="check videos")


def check_labels(videos: VideoList, split: str) -> list[Finding]:
    """Finds too few classes to train, classes without videos, and classes far smaller than the largest."""
    try:
        check_trainable(videos)
    except DataError as error:
        if split != "val":
            return [Finding(split, "", "classes", str(error))]
    counts = dict(zip(videos.class_names, videos.counts.tolist(), strict=True))
    largest = max(counts.values(), default=0)
    empty = [f"class {name} has no video" for name, count in counts.items() if not count]
    small = [
        f"class {name} has {count} videos, the largest class {largest}"
        for name, count in counts.items()
        if count and count * _IMBALANCE < largest
    ]
    return [Finding(split, "", "labels", text) for text in (*empty, *small)]


def check_duplicates(splits: Mapping[str, VideoList], *, workers: int) -> list[Finding]:
    """Finds videos with the same bytes as one in an earlier split. Only files of equal size are read."""
    rows = [(split, path) for split, videos in splits.items() for path in videos.paths]
    contents = digests([path for _, path in rows], workers=workers) if len(splits) > 1 else {}
    findings = []
    first: dict[bytes | str, tuple[str, str]] = {}
    for split, path in rows:
        other_split, other = first.setdefault(contents.get(path, path), (split, path))
        if other_split != split:
            findings.append(Finding(split, path, "duplicate", f"the same bytes as {other} in {other_split}"))
    return findings


def finding_lines(findings: Iterable[Finding], *, most: int) -> list[str]:
    """A line for each video or split with findings; those that stop training come first."""
    about: dict[str, list[Finding]] = {}
    for finding in findings:
        about.setdefault(finding.path or finding.split, []).append(finding)
    order = sorted(about, key=lambda name: not any(finding.fatal for finding in about[name]))
    lines = [f"{name}: {'; '.join(map(str, about[name]))}" for name in order]
    more = [f"... and {len(lines) - most} more; --csv FILE writes them all"] if len(lines) > most else []
    return [*lines[:most], *more]


def finding_table(findings: Iterable[Finding]) -> list[str]:
    """The number of findings of each kind, and which kinds stop training, as a table in lines."""
    counts = Counter(finding.kind for finding in findings)
    rows = [f"{kind:16} {counts[kind]:8}  {'yes' if fatal else 'no'}" for kind, fatal in KINDS.items()]
    return [f"{'finding':16} {'count':>8}  stops training", *rows]


def findings_csv(findings: Sequence[Finding]) -> bytes:
    """The findings as CSV with a header."""
    columns = (*(field.name for field in fields(Finding)), "stops_training")
    rows = [{**asdict(finding), "stops_training": "yes" if finding.fatal else "no"} for finding in findings]
    return csv_bytes(rows, columns=columns)


def _why_undecodable(path: str, _stop: threading.Event) -> str | None:
    try:
        if os.path.isdir(path) or not is_cached(path):
            load_video(path, [0])
    except VideoError as error:
        return str(error)
    return None


def _inspect(path: str, stop: threading.Event, *, split: str, clip: ClipConfig, quick: bool) -> list[Finding]:
    try:
        info = video_info(path)
        num_corrupt = info.num_corrupt if quick else _count_corrupt(path, info, stop)
        promised = _promised_frames(path, info)
    except VideoError as error:
        return [Finding(split, path, "undecodable", str(error).removeprefix(f"{path}: "))]
    lacks_times = clip.fps is not None and info.container == "folder"
    found = {
        "no times": lacks_times and "a folder of pictures has no rate, which --fps needs",
        "damaged": num_corrupt and f"{num_corrupt} of {info.num_frames} frames are made of damaged data",
        "cut off": info.num_frames < promised and f"{info.num_frames} of {promised} frames are there",
        "short": not lacks_times and _why_short(info, clip),
        "variable rate": info.variable_rate and "frames are not evenly spaced; --fps samples by time",
        "rotated": info.rotation and f"stored turned by {info.rotation} degrees; read upright",
    }
    return [Finding(split, path, kind, detail) for kind, detail in found.items() if detail]


def _count_corrupt(path: str, info: VideoInfo, stop: threading.Event) -> int:
    """Decodes all frames; returns how many of them the decoder had to guess or could not make."""
    if info.container == "folder":
        frames: Iterator[Any] = (load_video(path, [number]) for number in range(info.num_frames))
    else:
        frames = (frame for frame, _ in frames_in_order(find_file(path)))
    return sum(frame is None or getattr(frame, "is_corrupt", False) for frame in until_stopped(frames, stop))


def _promised_frames(path: str, info: VideoInfo) -> int:
    """The frames that the header of an MP4 or MOV file counts; 0 for other containers, whose headers are unreliable."""
    if not info.container.startswith("mov,"):
        return 0
    with open_video(find_file(path)) as source:
        return source.stream.frames


def _why_short(info: VideoInfo, clip: ClipConfig) -> str:
    """Why a clip does not fit into a video; empty if it does."""
    if clip.fps is None and info.num_frames < clip.span:
        return f"{info.num_frames} frames, a clip spans {clip.span}: frames are repeated"
    span = (clip.num_frames - 1) * clip.frame_stride / clip.fps if clip.fps else 0.0
    if info.duration_seconds < span:
        return f"{info.duration_seconds:.2f} seconds, a clip spans {span:.2f}: the last frame is repeated"
    return ""
