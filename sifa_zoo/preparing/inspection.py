"""Looks at one video, with or without decoding it all, and says what there is to know before training on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from sifa_zoo.config import ClipConfig
from sifa_zoo.preparing import ebml
from sifa_zoo.preparing.cut_off import why_cut_off
from sifa_zoo.preparing.parallel_map import until_stopped
from sifa_zoo.video.container import File, decode, find_file, frames_in_order, open_video, packets, prepare
from sifa_zoo.video.load import VideoError, VideoInfo, video_info
from sifa_zoo.video.picture_folder import picture_size_and_format
from sifa_zoo.video.reader import FolderReader, Video, VideoReader, open_reader

# Decoders that refuse damage which the one that FFmpeg prefers turns into pictures without a word.
_STRICT_DECODERS = {"vp9": "libvpx-vp9"}
_ONE_FRAME_PER_PACKET = ("vp9", "av1")


def inspect_video(video: Video, *, clip: ClipConfig, quick: bool, stop: threading.Event) -> dict[str, str]:
    """What is odd about a video, by kind of finding.

    Args:
        video: What to look at.
        clip: How clips will be cut; videos too short for one are reported.
        quick: Read every packet, but decode no more than numbering frames needs: misses damage further on.
        stop: Ends the work with `Stopped`.
    """
    try:
        info = video_info(video)
        seen = _Decoded(info.num_frames, info.num_corrupt) if quick else _decode_all(video, info, stop)
        cut_off = _why_incomplete(video, info, stop)
        structure = "" if quick or info.container == "folder" else ebml.why_damaged(find_file(video), stop)
    except VideoError as error:
        return {"undecodable": str(error)}
    lacks_times = clip.fps is not None and info.container == "folder"
    found = {
        "no times": lacks_times and "a folder of pictures has no rate, which --fps needs",
        "damaged": ", ".join(filter(None, [seen.damage(), structure])),
        "cut off": cut_off,
        "short": not lacks_times and _why_short(info, clip),
        "variable rate": info.variable_rate and "frames are not evenly spaced; --fps samples by time",
        "mixed sizes": seen.other_size,
        **_what_is_shown_otherwise(info),
    }
    return {kind: detail for kind, detail in found.items() if detail}


def _what_is_shown_otherwise(info: VideoInfo) -> dict[str, str]:
    """How players, and this package, show frames otherwise than they are stored."""
    ratio = info.sample_aspect_ratio
    texts = {
        "rotated": (info.rotation, f"stored turned by {abs(info.rotation)} degrees; read upright"),
        "mirrored": (info.mirrored, "stored mirrored; read as players show it"),
        "anamorphic": (ratio != 1, f"pixels are {ratio:.3g} times as wide as high; read with square pixels"),
        "HDR": (info.transfer, f"{info.transfer} colours, not mapped to those of SDR: they look pale"),
        "two video streams": (info.num_streams > 1, f"of {info.num_streams}, the one that FFmpeg chooses is read"),
    }
    return {kind: text for kind, (is_so, text) in texts.items() if is_so}


@dataclass
class _Decoded:
    """What decoding all frames showed."""

    num_frames: int = 0  # that there are or should be
    num_corrupt: int = 0  # frames that the decoder had to guess or could not make
    num_missing: int = 0  # frames that did not come out, without a word from the decoder
    first_size: tuple[int, int] | None = None
    other_size: str = ""

    def damage(self) -> str:
        """What is damaged, in words; empty if nothing is."""
        texts = {"are made of damaged data": self.num_corrupt, "do not come out of the decoder": self.num_missing}
        return ", ".join(f"{count} of {self.num_frames} frames {text}" for text, count in texts.items() if count)

    def add_size(self, number: int, height: int, width: int) -> None:
        """Notes the first frame whose size is not that of the very first."""
        if self.first_size is None:
            self.first_size = height, width
        elif self.first_size != (height, width) and not self.other_size:
            before = "{1}x{0}".format(*self.first_size)
            self.other_size = (
                f"frame {number} has {width}x{height} pixels, the first {before}; all are scaled to one size"
            )


def _decode_all(video: Video, info: VideoInfo, stop: threading.Event) -> _Decoded:
    seen = _Decoded()
    if info.container == "folder":
        reader = open_reader(video)
        assert isinstance(reader, FolderReader)
        for number, name in enumerate(until_stopped(reader.folder.names, stop)):
            reader.images([number], None)
            seen.add_size(number, *picture_size_and_format(reader.name, name)[0])
        return seen
    file = find_file(video)
    for number, frame in enumerate(until_stopped(_strictly_decoded(file, info.codec), stop)):
        seen.num_frames += 1
        seen.num_corrupt += frame is None or frame.is_corrupt
        if frame is not None:
            seen.add_size(number, frame.height, frame.width)
    if info.codec in _ONE_FRAME_PER_PACKET:
        with open_video(file) as opened:
            num_shown = sum(not packet.is_discard for packet in until_stopped(packets(opened), stop))
        seen.num_missing = max(0, num_shown - seen.num_frames)
        seen.num_frames += seen.num_missing
    return seen


def _strictly_decoded(file: File, codec: str) -> Iterator[VideoFrame | None]:
    """All frames, and None for each packet that cannot be decoded, by the decoder that notices most damage."""
    name = _STRICT_DECODERS.get(codec)
    num_frames = num_refused = 0
    if name in av.codecs_available:
        with open_video(file) as video:
            decoder: Any = VideoCodecContext.create(name, "r")
            prepare(decoder)
            for packet in chain(packets(video), [None]):  # None gets what the decoder still holds
                frames = decode(decoder, packet)
                num_refused += frames is None and packet is not None
                if frames:
                    yield from repeat(None, num_refused)
                    num_refused = 0
                    num_frames += len(frames)
                    yield from frames
    if num_frames:
        yield from repeat(None, num_refused)
    else:  # no such decoder, or this kind of stream is beyond it
        yield from (frame for frame, _ in frames_in_order(file))


def _why_incomplete(video: Video, info: VideoInfo, stop: threading.Event) -> str:
    """What shows that a file is cut off: its structure, or the number of packets that an MP4 or MOV file counts."""
    if info.container == "folder":
        return ""
    file = find_file(video)
    bytes_there, frames_there = why_cut_off(file, stop), ""
    if info.container.startswith("mov,"):  # the counts of other containers are unreliable
        reader = open_reader(video)
        with open_video(file) as opened:
            promised = opened.stream.frames
        if isinstance(reader, VideoReader) and (there := len(reader.index.sizes)) < promised:
            frames_there = f"{there} of {promised} frames are there"
    return f"{frames_there} ({bytes_there})" if frames_there and bytes_there else frames_there or bytes_there


def _why_short(info: VideoInfo, clip: ClipConfig) -> str:
    """Why a clip does not fit into a video; empty if it does."""
    if clip.fps is None and info.num_frames < clip.span:
        return f"{info.num_frames} frames, a clip spans {clip.span}: frames are repeated"
    span = (clip.num_frames - 1) * clip.frame_stride / clip.fps if clip.fps else 0.0
    if info.duration_seconds < span:
        return f"{info.duration_seconds:.2f} seconds, a clip spans {span:.2f}: the last frame is repeated"
    return ""
