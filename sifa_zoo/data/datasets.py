"""Labelled videos, from class folders or lists, and the dataset that cuts clips from them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sifa_zoo.config import ClipConfig
from sifa_zoo.data.decode import VideoError, load_video, video_info
from sifa_zoo.data.sampling import clip_indices

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".m2v", ".ts", ".mts", ".m2ts", ".vob"),
    *(".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".gif", ".h264", ".h265", ".divx"),
)
_SPLITS = {"train": ("train",), "val": ("val", "test")}
_LIST_SUFFIXES = (".txt", ".csv")
_MOST_LISTED = 20
_MAX_LABEL = 100_000
# Training decodes frames a little larger than the model's input, so that a crop has something to choose from.
_TRAIN_SHORT_SIDE = 1.15


class DataError(ValueError):
    """Videos or labels that cannot be used as they are; the message names them and says what to do."""


@dataclass(frozen=True)
class VideoList:
    """Videos with a label each; `labels` are places in `class_names`.

    Raises:
        ValueError: If there is not one label in range for each path.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.labels):
            raise ValueError(f"expected a label for each path, got {len(self.paths)} and {len(self.labels)}")
        if self.labels and not 0 <= min(self.labels) <= max(self.labels) < len(self.class_names):
            raise ValueError(f"labels must be in [0, {len(self.class_names)}), got {set(self.labels)}")

    def __len__(self) -> int:
        return len(self.paths)


def read_videos(
    data: str | os.PathLike[str], split: str | None = None, class_names: Sequence[str] | None = None
) -> VideoList:
    """Reads whatever a user names as data.

    Args:
        data: A folder with `train` and `val` (or `test`), each a folder of class folders or a list `train.txt`,
            `val.txt` (or `.csv`); or directly one folder of class folders, or one list, which then serves any split.
        split: `train`, `val`, or None where `data` has no splits.
        class_names: The classes that labels must belong to, in order, as when weights bring them. None: taken from
            the data.

    Raises:
        DataError: If there is no such path or split, or the folder or list cannot be used.
        ValueError: If `split` is unknown.
    """
    if split not in (*_SPLITS, None):
        raise ValueError(f"split must be train, val or None, got {split = }")
    data = Path(data)
    if data.is_file():
        return read_list(data, class_names)
    if not data.is_dir():
        raise DataError(f"no such file or folder: {data}")
    splits = {name: _find_split(data, names) for name, names in _SPLITS.items()}
    found = {name: path for name, path in splits.items() if path is not None}
    flat = [data / name for names in _SPLITS.values() for name in names if (data / name).is_dir()]
    if not found and flat and all(path in flat for path in data.iterdir() if path.is_dir()):
        raise DataError(f"{flat[0]} holds no class folders; expected {flat[0]}/CLASS/VIDEO")
    if not found:
        return read_folders(data, class_names)
    if split is None:
        raise DataError(f"{data} has splits, name one of them: {', '.join(str(path) for path in found.values())}")
    if split not in found:
        if bare := [path for path in flat if path.name in _SPLITS[split]]:
            raise DataError(f"{bare[0]} holds no class folders; expected {bare[0]}/CLASS/VIDEO")
        way_out = "give validation videos with --val" if split == "val" else "name the training videos themselves"
        raise DataError(f"{data} has no {split} folder or list beside {found.popitem()[1].name}; {way_out}")
    path = found[split]
    return read_list(path, class_names) if path.is_file() else read_folders(path, class_names)


def read_folders(root: str | os.PathLike[str], class_names: Sequence[str] | None = None) -> VideoList:
    """Reads `root/CLASS/VIDEO`: classes sorted by name, videos by path; other than video files are passed over.

    Raises:
        DataError: If there are no class folders, one has no videos, or one is not among `class_names`.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"no such folder: {root}")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise DataError(
            f"no class folders in {root}; expected {root}/CLASS/VIDEO, or name a list of `path label` lines"
        )
    names = tuple(class_names) if class_names is not None else tuple(folder.name for folder in folders)
    if strangers := [folder.name for folder in folders if folder.name not in names]:
        raise DataError(f"class folders of {root} that are not among the {_classes(names)}: {_few(strangers)}")
    videos = [(path, names.index(folder.name)) for folder in folders for path in _videos_in(folder)]
    filled = {path.parent for path, _ in videos}
    if not filled:
        raise DataError(f"no videos in the class folders of {root}; known are {', '.join(VIDEO_SUFFIXES)}")
    if empty := [folder.name for folder in folders if folder not in filled]:
        raise DataError(f"class folders of {root} without videos: {_few(empty)}; fill or remove them")
    return VideoList(tuple(path for path, _ in videos), tuple(label for _, label in videos), names)


def read_list(file: str | os.PathLike[str], class_names: Sequence[str] | None = None) -> VideoList:
    """Reads lines of `path label`, separated by the last white space (in .csv files by the last comma, if any).

    Paths are relative to the list. If all labels are numbers and no names are given, the classes are called `0`, `1`
    and so on up to the highest; otherwise labels are names, or, where names are given, places among them.

    Raises:
        DataError: If a line has no label or one that is unknown, a video does not exist, or there are no lines.
    """
    file = Path(file)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not a text file in UTF-8; expected lines of `path label`") from error
    except OSError as error:
        raise DataError(f"cannot read the list {file}: {error.strerror}") from error
    rows = [(number, *_split_line(file, number, line)) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DataError(f"no videos in the list {file}; expected lines of `path label`")
    labels, names = _number_labels(file, [(number, label) for number, _, label in rows], class_names)
    paths = tuple(file.parent / path for _, path, _ in rows)  # an absolute path stays as it is
    for number, path, label in rows:
        if (file.parent / f"{path} {label}").is_file():
            raise DataError(f"{file}, line {number}: expected `path label`, got only the path {path} {label}")
    missing = [f"line {number}: {path}" for (number, *_), path in zip(rows, paths, strict=True) if not path.is_file()]
    if missing:
        raise DataError(f"{len(missing)} of {len(rows)} videos in {file} do not exist: {_few(missing)}")
    return VideoList(paths, labels, names)


def check_trainable(videos: VideoList) -> None:
    """Refuses videos of which there is nothing to learn.

    Raises:
        DataError: If they are of fewer than two classes.
    """
    present = {videos.class_names[label] for label in videos.labels}
    if len(present) < 2:
        names = ", ".join(sorted(present)) or "none"
        raise DataError(f"training needs videos of at least two classes, got {len(present)}: {names}")


def check_videos(videos: VideoList, *, workers: int = 0) -> list[str]:
    """Decodes the first frame of every video, `workers` at a time. Returns a line, `path: reason`, for each bad one."""
    if workers == 0:
        reasons = list(map(_why_bad, videos.paths))
    else:
        with ThreadPoolExecutor(workers) as pool:  # threads do: FFmpeg runs without Python's lock
            reasons = list(pool.map(_why_bad, videos.paths))
    return [reason for reason in reasons if reason is not None]


class ClipDataset(Dataset[tuple[Tensor, int, int]]):
    """Clips of the videos in a list, with label and place in the list: `(clips, label, index)`.

    For training (`seed` given) clips are one random clip, float32 `(C, T, H, W)`. All that is random, the transform
    included, depends on `(seed, epoch, index)` alone, so not on the number of workers or the order. For evaluation
    (no `seed`) they are evenly spaced, float32 `(num_clips, C, T, H, W)`.

    Args:
        videos: What to read.
        clip: How to cut a clip.
        transform: Maps uint8 `(T, C, H, W)` to the model's input; see `transforms`.
        num_clips: Clips per video in evaluation.
        seed: Seed of training.

    Raises:
        ValueError: If `num_clips` is less than 1, or more for training.
        VideoError: On access, if a video cannot be decoded.

    Example:
        >>> clip = ClipConfig(img_size=112)
        >>> dataset = ClipDataset(read_videos("videos", "val"), clip, eval_transform(clip))  # doctest: +SKIP
        >>> dataset[0][0].shape  # doctest: +SKIP
        torch.Size([1, 3, 16, 112, 112])
    """

    def __init__(
        self,
        videos: VideoList,
        clip: ClipConfig,
        transform: Callable[[Tensor], Tensor],
        *,
        num_clips: int = 1,
        seed: int | None = None,
    ) -> None:
        if num_clips < 1 or (seed is not None and num_clips > 1):
            raise ValueError(f"num_clips must be at least 1, and 1 for training, got {num_clips = }, {seed = }")
        self.videos = videos
        self.clip = clip
        self.transform = transform
        self.num_clips = num_clips
        self.seed = seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # loader workers that live on must see it

    def __len__(self) -> int:
        return len(self.videos)

    def set_epoch(self, epoch: int) -> None:
        """Gives each epoch other clips; call it before iterating, as with a `DistributedSampler`."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        path, label = self.videos.paths[index], self.videos.labels[index]
        clips = self._eval_clips(path) if self.seed is None else self._train_clip(path, index)
        return clips, label, index

    def _train_clip(self, path: Path, index: int) -> Tensor:
        generator = random.Random(f"{self.seed} {int(self._epoch)} {index}")
        info = video_info(path)
        indices = self._indices(info.num_frames, generator=generator)
        short_side = min(round(self.clip.img_size * _TRAIN_SHORT_SIDE), info.height, info.width)  # never enlarged here
        frames = _load(path, indices, short_side)
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed the GPUs as well.
            torch.default_generator.manual_seed(generator.getrandbits(63))
            return self.transform(frames)

    def _eval_clips(self, path: Path) -> Tensor:
        num_video_frames = video_info(path).num_frames
        indices = [i for clip in range(self.num_clips) for i in self._indices(num_video_frames, clip=clip)]
        frames = _load(path, indices, self.clip.short_side)
        return torch.stack([self.transform(clip) for clip in frames.split(self.clip.num_frames)])

    def _indices(self, num_video_frames: int, *, clip: int = 0, generator: random.Random | None = None) -> list[int]:
        return clip_indices(
            num_video_frames,
            num_frames=self.clip.num_frames,
            frame_stride=self.clip.frame_stride,
            sampling=self.clip.sampling,
            clip=clip,
            num_clips=self.num_clips,
            generator=generator,
        )


def _load(path: Path, indices: list[int], short_side: int) -> Tensor:
    return torch.from_numpy(load_video(path, indices, short_side)).permute(0, 3, 1, 2)  # (T, C, H, W)


def _why_bad(path: Path) -> str | None:
    try:
        load_video(path, [0])
    except VideoError as error:
        return str(error)
    return None


def _find_split(data: Path, names: Sequence[str]) -> Path | None:
    """The folder or list of a split. A folder without folders inside is no split, but a class of that name."""
    for name in names:
        folder = data / name
        if folder.is_dir() and any(path.is_dir() for path in folder.iterdir()):
            return folder
        for suffix in _LIST_SUFFIXES:
            if (file := data / f"{name}{suffix}").is_file():
                return file
    return None


def _videos_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _split_line(file: Path, number: int, line: str) -> tuple[str, str]:
    comma = file.suffix.lower() == ".csv" and "," in line
    parts = line.rsplit("," if comma else "\t" if "\t" in line.strip() else None, 1)
    fields = [part.strip() for part in parts]
    if len(fields) < 2 or not all(fields):
        raise DataError(f"{file}, line {number}: expected `path label`, got {line.strip()!r}")
    return fields[0], fields[1]


def _number_labels(
    file: Path, labels: list[tuple[int, str]], class_names: Sequence[str] | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Turns the labels of numbered lines into places in the class names, which are returned too."""
    if negative := next(
        ((number, label) for number, label in labels if label[1:].isdecimal() and label[0] == "-"), None
    ):
        raise DataError(f"{file}, line {negative[0]}: labels count from 0, got {negative[1]}")
    if huge := next(
        ((number, label) for number, label in labels if label.isdecimal() and int(label) > _MAX_LABEL), None
    ):
        raise DataError(f"{file}, line {huge[0]}: labels count from 0 without large gaps, got {huge[1]}")
    all_numbers = all(label.isdecimal() for _, label in labels)
    if class_names is not None:
        names = tuple(class_names)
    elif all_numbers:
        names = tuple(str(i) for i in range(max(int(label) for _, label in labels) + 1))
    else:
        names = tuple(sorted({label for _, label in labels}))
    places = {name: place for place, name in enumerate(names)}
    if all_numbers and not all(label in places for _, label in labels):
        places = {str(place): place for place in range(len(names))}
        labels = [(number, str(int(label))) for number, label in labels]  # 007 is 7
    for number, label in labels:
        if label not in places:
            raise DataError(f"{file}, line {number}: label {label} is not among the {_classes(names)}")
    return tuple(places[label] for _, label in labels), names


def _classes(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({_few(names)})"


def _few(items: Sequence[str]) -> str:
    """The items, at most twenty of them, and how many are left out."""
    more = f" and {len(items) - _MOST_LISTED} more" if len(items) > _MOST_LISTED else ""
    return ", ".join(items[:_MOST_LISTED]) + more
