"""Random numbers that depend on what they are for, not on what was drawn before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_seeded(generator: random.Random) -> Iterator[None]:
    """Seeds torch's generator on the CPU with the next number of `generator`, and afterwards puts it back."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the GPUs as well.
        torch.default_generator.manual_seed(generator.getrandbits(63))
        yield
