"""Operators of SIFA."""

from sifa_zoo.ops.functional import backends, inter_frame_attention

__all__ = ["backends", "inter_frame_attention"]
