"""Reads videos kept as a folder of pictures, one per frame, such as `00001.jpg` or `img_00001.jpg`."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from PIL import Image, ImageOps

from sifa_zoo.video.container import VideoError, decode, prepare
from sifa_zoo.video.scaling import Display, Scaler

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
_COMMON_JPEG = ("yuvj420p", "yuvj422p", "yuvj444p", "gray")
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)  # of Exif: those with a quarter turn, mirrored or not
_NOT_FRAMES = ("thumbs.db", "desktop.ini")  # written by file managers; hidden files are left out, too


@dataclass(frozen=True)
class Folder:
    """A folder of pictures."""

    path: str
    names: tuple[str, ...]  # of the pictures, in the order of their last numbers
    size: tuple[int, int]  # height and width of the first picture, upright
    codec: str  # format of the first picture
    num_bytes: int  # of all pictures


def list_folder(path: str) -> Folder:
    """The pictures of a folder.

    Raises:
        VideoError: If it has no pictures in it, has anything else in it, or cannot be read.
    """
    try:
        return _list_folder(path, os.stat(path).st_mtime_ns)
    except OSError as error:
        raise VideoError(f"{path}: the folder cannot be read ({error.strerror})") from error


def read_pictures(folder: Folder, wanted: Sequence[int] | None, short_side: int | None) -> np.ndarray:
    """The pictures asked for, all in the size of the folder's first one: uint8 `(T, H, W, 3)`."""
    last = len(folder.names) - 1
    numbers = list(range(last + 1)) if wanted is None else [min(number, last) for number in wanted]
    size = Display().size(*folder.size, short_side=short_side)
    reader = _PictureReader(folder, size)
    images = np.empty((len(numbers), *size, 3), np.uint8)
    read: dict[int, int] = {}  # number -> its first place in `images`
    for place, number in enumerate(numbers):
        if number in read:
            images[place] = images[read[number]]
        else:
            images[place] = reader.read(number)
            read[number] = place
    return images


@lru_cache(maxsize=4096)
def _list_folder(path: str, mtime_ns: int) -> Folder:
    """Lists the pictures. The modification time is an argument only for the cache."""
    names = []
    num_bytes = 0
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _NOT_FRAMES:
                continue
            if entry.is_dir() or not entry.name.lower().endswith(PICTURE_SUFFIXES):
                raise VideoError(
                    f"{path}: is a folder with {entry.name!r} in it, expected a video file or a folder of pictures"
                )
            names.append(entry.name)
            num_bytes += entry.stat().st_size
    if not names:
        raise VideoError(f"{path}: is a folder without pictures, expected a video file or a folder of pictures")
    names.sort(key=_last_number)
    size, codec = picture_size_and_format(path, names[0])
    return Folder(path, tuple(names), size, codec, num_bytes)


def picture_size_and_format(path: str, name: str) -> tuple[tuple[int, int], str]:
    """Height and width of a picture, upright, and its format in small letters.

    Raises:
        VideoError: If it cannot be read.
    """
    with _explained(path, name), Image.open(os.path.join(path, name)) as image:
        width, height = image.size
        if image.getexif().get(_ORIENTATION, 1) in _SIDEWAYS:
            width, height = height, width
        return (height, width), (image.format or "").lower()


def _last_number(name: str) -> tuple[int, str]:
    digits = re.findall(r"\d+", name.rpartition(".")[0])
    return (int(digits[-1]) if digits else -1), name


class _PictureReader:
    """Reads pictures of a folder. FFmpeg decodes the usual JPEG files, in a quarter of Pillow's time."""

    def __init__(self, folder: Folder, size: tuple[int, int]) -> None:
        self.folder = folder
        self.size = size
        self._scaler = Scaler()
        self._jpeg = VideoCodecContext.create("mjpeg", "r")
        prepare(self._jpeg)

    def read(self, number: int) -> np.ndarray:
        name = self.folder.names[number]
        with _explained(self.folder.path, name):
            with open(os.path.join(self.folder.path, name), "rb") as file:
                data = file.read()
            frame = self._decode_jpeg(data)
            if frame is not None:
                return self._scaler.to_rgb(frame, self.size, Display())
            with Image.open(io.BytesIO(data)) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
            if (upright.height, upright.width) != self.size:
                upright = upright.resize(self.size[::-1], Image.Resampling.BILINEAR)
            return np.asarray(upright)

    def _decode_jpeg(self, data: bytes) -> VideoFrame | None:
        # FFmpeg would show a truncated picture as far as it goes, and it does not mirror where Exif says so.
        if not data.startswith(b"\xff\xd8") or b"\xff\xd9" not in data[-16:] or b"Exif\0" in data[:4096]:
            return None
        packet = Packet(len(data))
        packet.update(data)
        frames = decode(self._jpeg, packet) or []
        return frames[0] if frames and frames[0].format.name in _COMMON_JPEG else None


@contextmanager
def _explained(path: str, name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path}: the picture {name!r} cannot be read ({error})") from error
