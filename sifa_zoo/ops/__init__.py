"""The operators of SIFA, registered with PyTorch: native kernels where they run, plain PyTorch elsewhere.

In: features `(N, C, T, H, W)` and offsets `(N, 2 * K * K, T, H, W)`. Out: features. Uses no other room.
"""

from sifa_zoo.ops.compiler import BuildError
from sifa_zoo.ops.functional import check_backend, inter_frame_attention
from sifa_zoo.ops.native import SLOW, backends, build, why_plain
from sifa_zoo.ops.pointwise import add_context, motion_saliency

__all__ = [
    "SLOW",
    "BuildError",
    "add_context",
    "backends",
    "build",
    "check_backend",
    "inter_frame_attention",
    "motion_saliency",
    "why_plain",
]
