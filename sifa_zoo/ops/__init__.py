"""Operators of SIFA."""

from sifa_zoo.ops.compiler import BuildError
from sifa_zoo.ops.functional import check_backend, inter_frame_attention
from sifa_zoo.ops.native import backends, build

__all__ = ["BuildError", "backends", "build", "check_backend", "inter_frame_attention"]
