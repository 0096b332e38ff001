"""Makes smaller copies of videos, which decode faster: H.264 in MP4, short side reduced, keyframes close together.

A copy has as many frames as its original, at the same times, but no sound. The originals are only read. Each copy is
written under another name and renamed when it is complete, so an interrupted run can continue where it stopped.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import Interpolation, VideoReformatter

from sifa_zoo.config import ResizeConfig
from sifa_zoo.datasets.formats.folders import ClassFolders
from sifa_zoo.datasets.formats.table import write_table
from sifa_zoo.datasets.videos import DataError, VideoList, few
from sifa_zoo.files import is_temporary, write_files
from sifa_zoo.preparing.parallel_map import parallel_dict, until_stopped
from sifa_zoo.video.cache import find_index
from sifa_zoo.video.container import find_file, frames_in_order
from sifa_zoo.video.load import VideoError, VideoInfo, frame_times, video_info
from sifa_zoo.video.scaling import COLOR_ATTRIBUTES, Display, map_planes
from sifa_zoo.video.scan import TIMED_FORMATS, build_index

_SETTINGS = "resize.json"
_TICK = Fraction(1, 90_000)  # seconds; frames last whole numbers of it at all usual rates but 23.976
_NO_RATE = 25.0  # frames per second, assumed for a file that does not say
# Without b-pyramid no frame refers to a B-frame, so readers can leave out those that they do not want.
_X264 = {"preset": "veryfast", "bf": "3", "x264-params": "b-pyramid=none:log-level=none", "threads": "1"}


def resize_videos(
    splits: Mapping[str, VideoList], data: Path, output: Path, *, config: ResizeConfig, workers: int
) -> list[str]:
    """Copies the videos of a data set, and writes a list for each split.

    Args:
        splits: The videos to copy; the name of a split is that of its list, `output/SPLIT.csv`.
        data: Where the videos are; copies have the same paths below `output/videos`, with the suffix `.mp4`.
        output: Folder for the copies: new, empty, or left by an interrupted run over the same data with the same
            settings.
        config: How to copy.
        workers: Videos copied at a time.

    Returns:
        A line, `path: reason`, for each video that cannot be copied; the lists leave these out.

    Raises:
        DataError: If `output` holds anything else or is among class folders, or two copies would have the same name.
        OSError: If the disk is full; finished copies are kept.
    """
    refuse_within(output, data, splits)
    root, places = _places(splits, data, output)
    _claim(output, {"data": str(root), **asdict(config)})
    copy = partial(_copy_unless_done, config=config)
    failures = parallel_dict(copy, list(places.items()), workers=workers, text="resize")
    copies = {source: target for source, target in places.items() if (source, target) not in failures}
    for split, videos in splits.items():
        sources = [Path(os.path.abspath(path)) for path in videos.paths]
        copied = np.array([source in copies for source in sources], dtype=bool)
        write_table(output / f"{split}.csv", videos.subset(copied), [copies[s] for s in sources if s in copies])
    return list(failures.values())


def refuse_within(output: Path, data: Path, splits: Mapping[str, VideoList]) -> None:
    """Refuses an output among class folders, where it would be taken for a class.

    Raises:
        DataError: If `output` is within `data`, and `data` has a folder for each class.
    """
    folders = any(videos.format == ClassFolders.title for videos in splits.values())
    if folders and output.resolve().is_relative_to(data.resolve()):
        raise DataError(f"{output} lies within the class folders of {data}; name a folder elsewhere")


def resize_video(
    source: str | os.PathLike[str], target: Path, config: ResizeConfig, *, stop: threading.Event | None = None
) -> None:
    """Copies one video, with the original's modification time.

    A video that is small enough keeps its size, except that an odd width or height loses a pixel.

    Raises:
        VideoError: If no frame of it can be decoded, or the copy has another number of frames.
        Stopped: If `stop` was set meanwhile.
    """
    changed = os.stat(source).st_mtime_ns if os.path.exists(source) else 0
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.stem}.{os.getpid()}.tmp.mp4")
    try:
        count = _encode(Path(source), beside, config=config, stop=stop or threading.Event())
        copied = build_index(find_file(beside)).num_frames
        if copied != count:
            raise VideoError(f"{source}: {count} frames became {copied} in the copy")
        os.utime(beside, ns=(changed, changed))
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def _encode(source: Path, target: Path, *, config: ResizeConfig, stop: threading.Event) -> int:
    """Writes all frames of a video; returns how many there were."""
    info = video_info(source)
    size = _copied_size(info.height, info.width, config.short_side)
    display = find_index(find_file(source)).display
    clock = _Clock(source, info)
    reformatter = VideoReformatter()
    count = 0
    with av.open(str(target), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", options={**_X264, "crf": str(config.crf), "g": str(config.gop_size)})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _TICK
        frames = ((frame, pts) for frame, pts in frames_in_order(find_file(source)) if frame is not None)
        for count, (frame, pts) in enumerate(until_stopped(frames, stop), 1):
            upright = _reformat(frame, size, reformatter, display)
            if count == 1:
                for name in COLOR_ATTRIBUTES:
                    setattr(stream.codec_context, name, getattr(upright, name))
            upright.pts, upright.time_base = round(clock.seconds(count - 1, pts) * _TICK.denominator), _TICK
            container.mux(stream.encode(upright))
        container.mux(stream.encode())
    return count


class _Clock:
    """When frames are shown: at their times if these rise from frame to frame, or else by the rate."""

    def __init__(self, source: Path, info: VideoInfo) -> None:
        self.times = frame_times(source)
        self.rises = bool(np.isfinite(self.times).all() and (np.diff(self.times) > 0).all())
        # There the clock is that of the packets, which holds even if damage takes a frame away.
        self.time_base = Fraction(*find_index(find_file(source)).time_base) if info.container in TIMED_FORMATS else None
        self.fps = info.fps or _NO_RATE

    def seconds(self, number: int, pts: int | None) -> float:
        """The time of frame `number`, whose packet has the time `pts`."""
        if not self.rises:  # as in AVI with B-frames
            return number / self.fps
        return float(self.times[number] if self.time_base is None or pts is None else pts * self.time_base)


def _reformat(
    frame: av.VideoFrame, size: tuple[int, int], reformatter: VideoReformatter, display: Display
) -> av.VideoFrame:
    """The frame as players show it, in that size and the encoder's pixel format; its colours mean the same."""
    height, width = size[::-1] if display.rotation % 180 else size
    part = display.cut(frame)
    resized = reformatter.reformat(
        part,
        width,
        height,
        "yuv420p",
        dst_color_range=None if part.format.is_rgb else frame.color_range,
        interpolation=Interpolation.BILINEAR,
        threads=1,
    )
    if not (display.rotation or display.mirrored):
        return resized
    return map_planes(resized, lambda plane, _: display.turn(plane))


def _copied_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Even height and width with a shorter side of at most `short_side`."""
    scale = min(1.0, short_side / min(height, width))
    return max(2, int(height * scale + 1e-6) // 2 * 2), max(2, int(width * scale + 1e-6) // 2 * 2)


def _copy_unless_done(place: tuple[Path, Path], stop: threading.Event, *, config: ResizeConfig) -> str | None:
    """Why a video cannot be copied; None if it is. A copy with another modification time is made anew."""
    source, target = place
    try:
        if not (target.exists() and target.stat().st_mtime_ns == source.stat().st_mtime_ns):
            resize_video(source, target, config, stop=stop)
    except VideoError as error:
        return str(error)
    except (FFmpegError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        return f"{source}: cannot be copied ({error})"
    return None


def _places(splits: Mapping[str, VideoList], data: Path, output: Path) -> tuple[Path, dict[Path, Path]]:
    """The folder of the originals, and where the copy of each goes: the same path below `output/videos`, as MP4."""
    sources = [Path(os.path.abspath(path)) for videos in splits.values() for path in videos.paths]
    root = Path(os.path.abspath(data if data.is_dir() else data.parent))
    if not all(source.is_relative_to(root) for source in sources):
        root = Path(os.path.commonpath([source.parent for source in sources]))
    if output.resolve() == root.resolve():
        raise DataError(f"{output} is where the originals are; name another folder for the copies")
    if pictures := [str(source) for source in sources if source.is_dir()]:
        raise DataError(f"folders of pictures are not copied, only video files: {few(pictures)}")
    places = {source: output / "videos" / source.relative_to(root).with_suffix(".mp4") for source in sources}
    names: dict[Path, Path] = {}
    for source, target in places.items():
        if other := names.get(target):
            raise DataError(f"{other} and {source} would both become {target}; rename one of them")
        names[target] = source
    return root, places


def _claim(output: Path, wanted: dict[str, Any]) -> None:
    """Makes the folder, unless it already holds copies of the same data with the same settings.

    Raises:
        DataError: If it holds anything else.
    """
    note = output / _SETTINGS
    if note.is_file():
        try:
            found = json.loads(note.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{note} is damaged; remove {output}, or name another folder") from error
        if found != wanted:
            raise DataError(f"{output} holds copies made with {found}, not with {wanted}; name another folder")
        return
    if output.exists() and (not output.is_dir() or any(not is_temporary(path) for path in output.iterdir())):
        raise DataError(f"{output} is not empty and holds no copies of an earlier run; name another folder")
    output.mkdir(parents=True, exist_ok=True)
    write_files({note: f"{json.dumps(wanted)}\n".encode()})
