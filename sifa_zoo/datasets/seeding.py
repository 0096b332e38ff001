"""Random numbers that depend on their purpose, not on what was drawn before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_seeded(generator: random.Random) -> Iterator[None]:
    """Seeds torch's CPU generator with the next number of `generator`, and restores it afterwards."""
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which would seed the GPUs as well
        torch.default_generator.manual_seed(generator.getrandbits(63))
        yield
