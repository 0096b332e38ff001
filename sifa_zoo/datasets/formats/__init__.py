"""Labelled videos from data sets as people have them: a module per format, and `read`, which recognises them."""

from sifa_zoo.datasets.formats.read import FORMATS, read_splits, read_videos
from sifa_zoo.datasets.formats.remap import BY_INDEX
from sifa_zoo.datasets.formats.table import CLASSES, write_table
from sifa_zoo.datasets.formats.video_files import VIDEO_SUFFIXES

__all__ = ["BY_INDEX", "CLASSES", "FORMATS", "VIDEO_SUFFIXES", "read_splits", "read_videos", "write_table"]
