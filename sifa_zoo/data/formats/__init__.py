"""Labelled videos from data sets as people have them; a module per format, and `read` to tell them apart."""

from sifa_zoo.data.formats.files import VIDEO_SUFFIXES
from sifa_zoo.data.formats.read import FORMATS, read_videos
from sifa_zoo.data.formats.remap import BY_INDEX

__all__ = ["BY_INDEX", "FORMATS", "VIDEO_SUFFIXES", "read_videos"]
