"""What a decoder has to be told before its first packet, which FFmpeg reads from the container.

A decoder made from these settings can be fed packets that were read from their places in the file, without FFmpeg
opening the file again.
"""

from __future__ import annotations

from dataclasses import dataclass

from av.codec import CodecContext
from av.video.codeccontext import VideoCodecContext

from sifa_zoo.video.container import ATTRIBUTES, REPORT_DAMAGE

# Values of `chroma_siting`, likely ones first.
CHROMA_SITINGS = ("unspecified", "left", "center", "topleft", "top", "bottomleft", "bottom")
# Fields that do not simply have the name and the value of an attribute of the decoder.
_SET_OTHERWISE = ("name", "extradata", "chroma_siting")


@dataclass(frozen=True)
class DecoderSettings:
    """Settings of a video decoder; except for those with a comment, they are attributes of PyAV's codec context."""

    width: int
    height: int
    pix_fmt: str | None
    bits_per_coded_sample: int
    reorder_depth: int
    color_range: int
    colorspace: int
    color_primaries: int
    color_trc: int
    codec_tag: str | None  # None where it cannot be written as four characters
    name: str  # of the decoder
    extradata: str  # hexadecimal, as JSON has no bytes
    chroma_siting: str  # FFmpeg's `chroma_sample_location`: PyAV sets it, but cannot read it

    @classmethod
    def of(cls, codec: VideoCodecContext) -> DecoderSettings:
        """The settings of a decoder that FFmpeg made for an open file, which must not have decoded anything yet."""
        tag = codec.codec_tag
        return cls(
            width=codec.width,
            height=codec.height,
            pix_fmt=codec.format.name if codec.format else None,  # `pix_fmt` crashes in PyAV 17 if it is unknown
            bits_per_coded_sample=codec.bits_per_coded_sample,
            reorder_depth=codec.reorder_depth,
            color_range=codec.color_range,
            colorspace=codec.colorspace,
            color_primaries=codec.color_primaries,
            color_trc=codec.color_trc,
            codec_tag=tag if len(tag) == 4 and tag.isascii() and "\0" not in tag else None,
            name=codec.name,
            extradata=(codec.extradata or b"").hex(),
            chroma_siting=CHROMA_SITINGS[0],
        )

    def create(self) -> VideoCodecContext:
        """A decoder with these settings."""
        codec = CodecContext.create(self.name, "r")
        assert isinstance(codec, VideoCodecContext)
        for name, value in {**vars(self), **ATTRIBUTES}.items():
            if name not in _SET_OTHERWISE and value is not None:
                setattr(codec, name, value)
        codec.options = {"chroma_sample_location": self.chroma_siting, **REPORT_DAMAGE}
        if self.extradata:
            codec.extradata = bytes.fromhex(self.extradata)
        return codec
