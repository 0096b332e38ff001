"""A video file or a folder of pictures, opened to ask it for frames, times and what else is known of it.

Given the index of a file, a frame can be reached in two ways:

- at random: decode from the keyframe before the wanted frame up to the packet that gives it. Packets are read from
  their places in the file, without FFmpeg opening it, or reached by a seek that is checked. Decoding is checked, too:
  damage that the container hides is noticed when decoding reaches it.
- in order: decode from the start and count. This is always right; it serves all other files, and those that fail a
  check.

Frames that are neither wanted nor referred to by others are not decoded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from av.error import FFmpegError

from sifa_zoo.video.cache import find_index, save_index
from sifa_zoo.video.container import File, VideoError, find_file, frames_in_order, why_no_frame
from sifa_zoo.video.index import Disagreement, Index, Pass
from sifa_zoo.video.picture_folder import Folder, list_folder, read_pictures
from sifa_zoo.video.random_access import frames_at_random
from sifa_zoo.video.scaling import Canvas

_LEADS = (0, 1)  # keyframes by which decoding starts earlier than it need, one attempt after another

Video: TypeAlias = str | os.PathLike[str] | bytes


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video.

    Attributes:
        num_frames: How many frames can be decoded.
        fps: Average rate in frames per second; 0 for a folder of pictures.
        height: Pixels, as frames are read.
        width: Pixels, as frames are read.
        duration_seconds: `num_frames / fps`.
        codec: FFmpeg's name, such as h264; for a folder of pictures the format of the first one.
        container: FFmpeg's name, such as avi; `folder` for a folder of pictures.
        rotation: Degrees, counter-clockwise, by which stored frames are turned to be upright: -90, 0, 90 or 180.
        variable_rate: Whether distances between frames differ by more than rounding of their times explains.
        num_bytes: Size of the file, or of all pictures.
        num_corrupt: Packets that are marked as damaged or cannot be decoded, as far as the file was read.
        random_access: Whether frames are reached without decoding from the start.
        mirrored: Whether left and right of stored frames are exchanged before they are turned.
        sample_aspect_ratio: Width of a stored pixel, if its height is 1; frames are stretched to square pixels.
        transfer: PQ or HLG for a video of high dynamic range, whose brightness is not converted; otherwise empty.
        num_streams: Video streams in the file, of which FFmpeg's choice is read; cover pictures do not count.
    """

    num_frames: int
    fps: float
    height: int
    width: int
    duration_seconds: float
    codec: str
    container: str
    rotation: int
    variable_rate: bool
    num_bytes: int
    num_corrupt: int
    random_access: bool
    mirrored: bool = False
    sample_aspect_ratio: float = 1.0
    transfer: str = ""
    num_streams: int = 1


def open_reader(path: Video) -> VideoReader | FolderReader:
    """Opens a video file, a folder of pictures, or the bytes of a video file. Nothing has to be closed.

    Raises:
        VideoError: If there is no such file, or it is not a video.
    """
    if not isinstance(path, bytes) and os.path.isdir(path):
        return FolderReader(list_folder(os.fspath(path)))
    file = find_file(path)
    return VideoReader(file, find_index(file))


@dataclass(frozen=True)
class VideoReader:
    """A video file and what is known of it. Its methods raise VideoError if no frame can be decoded."""

    file: File
    index: Index

    @property
    def name(self) -> str:
        """The path, or the name of the bytes."""
        return self.file.path

    @property
    def num_frames(self) -> int:
        return self.known_index().num_frames

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of frames, as they are read."""
        return self.index.size

    def images(self, wanted: Sequence[int] | None, short_side: int | None) -> np.ndarray:
        """The frames asked for, as from `load_video`."""
        numbers = range(self.num_frames) if wanted is None else wanted
        index = self.index
        size = index.display.size(*index.stored_size, short_side=short_side)
        if not index.known and numbers:
            # The whole file is decoded once reads from its start, taken together, would cost as much.
            index.num_decoded += max(numbers)
            if index.num_decoded > len(index.sizes):
                self.known_index()
        for lead in _LEADS:
            canvas = Canvas(numbers, size=size, display=index.display, num_frames=len(index.frame_packets))
            try:
                for number, frame in frames_at_random(self.file, index, sorted(canvas.missing), lead=lead):
                    canvas.put(number, frame)
                break
            except (Disagreement, FFmpegError):
                continue
        else:
            canvas = self._images_in_order(numbers, size)
        # Decoding may have brought damage to light, and with it that there are fewer frames than packets.
        return canvas.image[: index.num_frames] if wanted is None else canvas.image

    def times(self, *, complete: bool = False) -> np.ndarray:
        """When each frame is shown, as from `frame_times`."""
        index = self.known_index()
        return _complete(index.seconds, index.fps) if complete else index.seconds

    @property
    def info(self) -> VideoInfo:
        index = self.known_index()
        return VideoInfo(
            num_frames=index.num_frames,
            fps=index.fps,
            height=index.size[0],
            width=index.size[1],
            duration_seconds=index.num_frames / index.fps if index.fps else 0.0,
            codec=index.codec,
            container=index.container,
            rotation=index.display.rotation,
            variable_rate=index.variable_rate,
            num_bytes=self.file.size,
            num_corrupt=index.num_corrupt,
            random_access=index.random_access,
            mirrored=index.display.mirrored,
            sample_aspect_ratio=index.display.sample_aspect_ratio,
            transfer=index.transfer,
            num_streams=index.num_streams,
        )

    def known_index(self) -> Index:
        """The index; where packets do not tell which frames they give, the whole file is decoded first."""
        if not self.index.known:
            self._decode_in_order(None)
        return self.index

    def _images_in_order(self, numbers: Sequence[int], size: tuple[int, int]) -> Canvas:
        if self.index.random_access:
            self.index.distrust()
            self._decode_in_order(None)  # to the end, so that the index is saved
        canvas = Canvas(numbers, size=size, display=self.index.display, num_frames=self.index.num_frames)
        if canvas.missing:
            self._decode_in_order(canvas)
        return canvas

    def _decode_in_order(self, canvas: Canvas | None) -> None:
        """Decodes from the start to the last frame wanted or, if none is, to the end.

        From a pass to the end the index learns which packet gives which frame.
        """
        decoded = Pass()
        number = -1
        for frame, pts in frames_in_order(self.file):
            if frame is None:
                decoded.num_corrupt += 1
                continue
            number += 1
            if canvas is not None:
                canvas.put(number, frame)
                if not canvas.missing:
                    return
            decoded.add(frame, pts)
            last = frame
        if number < 0:
            raise VideoError(f"{self.file.path}: {why_no_frame(self.file, self.index.codec)}")
        self.index.learn(decoded)
        save_index(self.file, self.index)
        if canvas is not None:
            for beyond in list(canvas.missing):
                canvas.put(beyond, last)


@dataclass(frozen=True)
class FolderReader:
    """A folder of pictures, asked as a video is."""

    folder: Folder

    @property
    def name(self) -> str:
        """The path."""
        return self.folder.path

    @property
    def num_frames(self) -> int:
        return len(self.folder.names)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, upright, of the first picture."""
        return self.folder.size

    def images(self, wanted: Sequence[int] | None, short_side: int | None) -> np.ndarray:
        """The pictures asked for, as from `load_video`."""
        return read_pictures(self.folder, wanted, short_side)

    def times(self, *, complete: bool = False) -> np.ndarray:
        """NaN for each picture, since a folder has no rate."""
        return np.full(self.num_frames, np.nan)

    @property
    def info(self) -> VideoInfo:
        folder = self.folder
        return VideoInfo(
            self.num_frames, 0.0, *folder.size, 0.0, folder.codec, "folder", 0, False, folder.num_bytes, 0, True
        )


def _complete(times: np.ndarray, fps: float) -> np.ndarray:
    """Spaces missing times evenly between known ones; before the first and after the last they follow the rate."""
    known = np.flatnonzero(np.isfinite(times))
    if len(known) == len(times) or not fps:
        return times
    numbers = np.arange(len(times))
    if not len(known):
        return numbers / fps
    before, after = np.minimum(numbers - known[0], 0), np.maximum(numbers - known[-1], 0)
    return np.interp(numbers, known, times[known]) + (before + after) / fps
