"""Videos kept as a folder of pictures, one per frame, such as `00001.jpg` or `img_00001.jpg`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageOps

from sifa_zoo.data.container import VideoError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
_NOT_FRAMES = ("thumbs.db", "desktop.ini")  # written by file managers; hidden files are left out as well


@dataclass(frozen=True)
class Folder:
    """A folder of pictures: names in the order of their last number, size of the first in pixels (height, width)."""

    path: str
    names: tuple[str, ...]
    size: tuple[int, int]
    codec: str
    num_bytes: int


def find_folder(path: str | os.PathLike[str] | bytes) -> Folder | None:
    """The folder of pictures at a path; None if it is not a folder.

    Raises:
        VideoError: If there are no pictures in it, or something else.
    """
    if isinstance(path, bytes):
        return None
    path = os.fspath(path)
    try:
        if not os.path.isdir(path):
            return None
        return _list_folder(path, os.stat(path).st_mtime_ns)
    except ValueError as error:
        if isinstance(error, VideoError):
            raise
        return None  # a null byte in the name
    except OSError as error:
        raise VideoError(f"{path}: the folder cannot be read ({error.strerror})") from error


def read_pictures(folder: Folder, wanted: list[int] | None, short_side: int | None) -> np.ndarray:
    """The pictures asked for, all brought to the size of the first of them: uint8 `(T, H, W, 3)`."""
    last = len(folder.names) - 1
    numbers = list(range(last + 1)) if wanted is None else [min(number, last) for number in wanted]
    if not numbers:
        return np.empty((0, *resized(folder.size, short_side), 3), np.uint8)
    first = _read_picture(folder, numbers[0], short_side, None)
    images = np.empty((len(numbers), *first.shape), np.uint8)
    read: dict[int, int] = {}  # number -> place where it stands already
    for place, number in enumerate(numbers):
        if number in read:
            images[place] = images[read[number]]
        else:
            images[place] = _read_picture(folder, number, short_side, first.shape[:2]) if place else first
            read[number] = place
    return images


def resized(size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """Height and width with the shorter side at `short_side`."""
    height, width = size
    if short_side is None:
        return size
    if height <= width:
        return short_side, round(width * short_side / height)
    return round(height * short_side / width), short_side


@lru_cache(maxsize=4096)
def _list_folder(path: str, mtime_ns: int) -> Folder:
    """Lists the pictures. The time of change is there for the cache alone."""
    names = []
    num_bytes = 0
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _NOT_FRAMES:
                continue
            if entry.is_dir() or not entry.name.lower().endswith(_SUFFIXES):
                raise VideoError(
                    f"{path}: is a folder with {entry.name!r} in it, expected a video file or a folder of pictures alone"
                )
            names.append(entry.name)
            num_bytes += entry.stat().st_size
    if not names:
        raise VideoError(f"{path}: is a folder without pictures, expected a video file or a folder of pictures")
    names.sort(key=_last_number)
    with _open(path, names[0]) as image:
        width, height = image.size
        if image.getexif().get(_ORIENTATION, 1) in _SIDEWAYS:
            width, height = height, width
        codec = (image.format or "").lower()
    return Folder(path, tuple(names), (height, width), codec, num_bytes)


_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)


def _last_number(name: str) -> tuple[int, str]:
    digits = re.findall(r"\d+", name.rpartition(".")[0])
    return (int(digits[-1]) if digits else -1), name


def _open(path: str, name: str) -> Image.Image:
    try:
        return Image.open(os.path.join(path, name))
    except (OSError, ValueError) as error:
        raise VideoError(f"{path}: the picture {name!r} cannot be read ({error})") from error


def _read_picture(folder: Folder, number: int, short_side: int | None, size: tuple[int, int] | None) -> np.ndarray:
    name = folder.names[number]
    with _open(folder.path, name) as image:
        try:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:
            raise VideoError(f"{folder.path}: the picture {name!r} cannot be decoded ({error})") from error
    height, width = size or resized((upright.height, upright.width), short_side)
    if (upright.width, upright.height) != (width, height):
        upright = upright.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(upright)
