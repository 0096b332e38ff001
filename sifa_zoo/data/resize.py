"""Smaller copies of videos that decode faster: H.264 in MP4, short side reduced, keyframes close together.

Frames stay as many as they were and keep their times; sound is left out. The originals are only read. Each copy is
written beside its place and renamed when it is whole, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from sifa_zoo.config import ResizeConfig
from sifa_zoo.data.container import find_file, frames_in_order
from sifa_zoo.data.decode import VideoError, frame_times, video_info
from sifa_zoo.data.formats import write_table
from sifa_zoo.data.parallel import Stopped, parallel_map
from sifa_zoo.data.videos import DataError, VideoList, few

_SETTINGS = "resize.json"
_TICK = Fraction(1, 90_000)  # seconds; whole numbers of it for all usual rates but 23.976
# Frames to which no other refers are left out where they are not wanted: B-frames that serve as no reference.
_X264 = {"preset": "veryfast", "bf": "3", "x264-params": "b-pyramid=none:log-level=none", "threads": "1"}


def resize_videos(
    splits: Mapping[str, VideoList],
    data: Path,
    output: Path,
    *,
    config: ResizeConfig,
    workers: int,
) -> list[str]:
    """Copies the videos of a data set, and writes a list for each split.

    Args:
        splits: The videos to copy; the name of a split is that of its list, `output/SPLIT.csv`.
        data: Where the videos lie; their paths relative to it are kept below `output/videos`, with the suffix `.mp4`.
        output: Folder for the copies; new, empty or of an interrupted run with the same settings.
        config: How to copy.
        workers: Videos at a time.

    Returns:
        A line, `path: reason`, for each video that cannot be decoded to its end; the lists leave these out.

    Raises:
        DataError: If `output` holds anything else or lies within a class folder, or two copies would have one name.
        OSError: If the disk is full; finished copies are kept.
    """
    places = _places(splits, data, output)
    _claim(output, config)
    copy = partial(_copy_unless_done, config=config)
    failures = {
        source: reason
        for (source, _), reason in parallel_map(copy, list(places.items()), workers=workers, text="resize")
        if reason is not None
    }
    for split, videos in splits.items():
        copied = videos.subset(np.array([Path(path) not in failures for path in videos.paths], dtype=bool))
        write_table(output / f"{split}.csv", copied, [places[Path(path)] for path in copied.paths])
    return [failures[source] for source in places if source in failures]


def resize_video(
    source: str | os.PathLike[str], target: Path, config: ResizeConfig, *, stop: threading.Event | None = None
) -> None:
    """Copies one video; a video that is not larger keeps its size, but for odd widths and heights, which lose a pixel.

    Raises:
        VideoError: If no frame of it can be decoded, or the copy has not as many.
        Stopped: If `stop` was set meanwhile.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.stem}.tmp.mp4")
    try:
        count = _encode(Path(source), beside, config=config, stop=stop or threading.Event())
        copied = video_info(beside).num_frames
        if copied != count:
            raise VideoError(f"{source}: {count} frames became {copied} in the copy")
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def _encode(source: Path, target: Path, *, config: ResizeConfig, stop: threading.Event) -> int:
    """Writes all frames of a video; returns how many there were."""
    info = video_info(source)
    size = _copied_size(info.height, info.width, config.short_side)
    times = frame_times(source)
    rising = bool(np.all(np.diff(times) > 0))  # not so in AVI with B-frames, and NaN where there are no times
    reformatter = VideoReformatter()
    count = 0
    with av.open(str(target), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", options={**_X264, "crf": str(config.crf), "g": str(config.gop_size)})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _TICK
        frames = (frame for frame, _ in frames_in_order(find_file(source)) if frame is not None)
        for count, frame in enumerate(frames, 1):
            if stop.is_set():
                raise Stopped
            seconds = times[count - 1] if rising else (count - 1) / info.fps
            upright = _reformat(frame, size, reformatter, turns=round(info.rotation / 90) % 4)
            upright.pts, upright.time_base = round(seconds / _TICK), _TICK
            container.mux(stream.encode(upright))
        container.mux(stream.encode())
    return count


def _reformat(
    frame: av.VideoFrame, size: tuple[int, int], reformatter: VideoReformatter, *, turns: int
) -> av.VideoFrame:
    """The frame upright and of height and width `size`, in the encoder's pixel format."""
    height, width = size[::-1] if turns % 2 else size
    resized = reformatter.reformat(
        frame, width, height, "rgb24" if turns else "yuv420p", interpolation=Interpolation.BILINEAR, threads=1
    )
    if not turns:
        return resized
    upright = np.ascontiguousarray(np.rot90(resized.to_ndarray(), turns), dtype=np.uint8)
    return av.VideoFrame.from_ndarray(upright, format="rgb24")


def _copied_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Even height and width with the shorter side at most at `short_side`."""
    scale = min(1.0, short_side / min(height, width))
    return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))


def _copy_unless_done(place: tuple[Path, Path], stop: threading.Event, *, config: ResizeConfig) -> str | None:
    """Why a video cannot be copied; None when it is. A copy older than its original is made anew."""
    source, target = place
    try:
        if not (target.exists() and target.stat().st_mtime_ns >= source.stat().st_mtime_ns):
            resize_video(source, target, config, stop=stop)
    except VideoError as error:
        return str(error)
    return None


def _places(splits: Mapping[str, VideoList], data: Path, output: Path) -> dict[Path, Path]:
    """Where the copy of each video goes: its path relative to the data set, with the suffix of MP4."""
    root = data if data.is_dir() else data.parent
    sources = [Path(path) for videos in splits.values() for path in videos.paths]
    if not all(source.is_relative_to(root) for source in sources):
        root = Path(os.path.commonpath([source.parent for source in sources]))
    if output.resolve() == root.resolve():
        raise DataError(f"{output} is where the originals lie; name another folder for the copies")
    if pictures := [str(source) for source in sources if source.is_dir()]:
        raise DataError(f"folders of pictures are not copied, only video files: {few(pictures)}")
    places = {
        source: output / "videos" / source.relative_to(root).with_suffix(".mp4") for source in dict.fromkeys(sources)
    }
    names: dict[Path, Path] = {}
    for source, target in places.items():
        if other := names.get(target):
            raise DataError(f"{other} and {source} would both become {target}; rename one of them")
        names[target] = source
    return places


def _claim(output: Path, config: ResizeConfig) -> None:
    """Makes the folder, or finds it to be one of copies with the same settings."""
    note = output / _SETTINGS
    wanted = asdict(config)
    if note.is_file():
        if (found := json.loads(note.read_text(encoding="utf-8"))) != wanted:
            raise DataError(f"{output} holds copies made with {found}, asked for were {wanted}; name another folder")
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output} is not empty and holds no copies of an earlier run; name another folder")
    output.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(wanted) + "\n", encoding="utf-8")
