"""The operator of SIFA, in PyTorch and as native kernels.

In: feature maps and offsets. Out: what each location gathers from the frame after it. Uses no other room.
"""

from sifa_zoo.ops.compiler import BuildError
from sifa_zoo.ops.functional import check_backend, inter_frame_attention
from sifa_zoo.ops.native import backends, build

__all__ = ["BuildError", "backends", "build", "check_backend", "inter_frame_attention"]
