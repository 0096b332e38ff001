"""Checks weights as their users get them: bytes, loading, and logits for the fixed clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from sifa_zoo.publishing.fixed_clip import first_logits
from sifa_zoo.registry.create import create_model
from sifa_zoo.weights.finding import find_weights
from sifa_zoo.weights.hub import CorruptError, file_sha256

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Verified:
    """What was found; `revision` is None if the file is not from the Hub, `deviation` if no logits are stored."""

    path: Path
    sha256: str
    bytes: int
    revision: str | None
    deviation: float | None


def verify(name: str, *, cache_dir: str | Path | None = None) -> Verified:
    """Check weights: their hash if it is known, that they load, and their logits if some are stored.

    Args:
        name: As `create_model` takes it: `architecture.tag`, `hf-hub:owner/name`, `local-dir:PATH`.
        cache_dir: Where downloaded weights are kept.

    Raises:
        WeightsError: If they cannot be obtained, are damaged, or do not fit.
        CorruptError: If a logit is not finite, or further than 1e-4 from the stored one.
    """
    weights = find_weights(name, cache_dir=cache_dir)
    logits = torch.tensor(first_logits(create_model(name, pretrained=True, cache_dir=cache_dir)))
    if not logits.isfinite().all():
        raise CorruptError(f"{name}: the logits of the fixed clip are not finite: {logits.tolist()}")
    deviation = None
    if weights.logits is not None:
        deviation = (logits - torch.tensor(weights.logits)).abs().max().item()
        if deviation > TOLERANCE:
            raise CorruptError(
                f"{name}: logits of the fixed clip are {deviation:.2g} off the stored ones, more than {TOLERANCE:g}"
            )
    snapshot = weights.path.parent
    return Verified(
        path=weights.path,
        sha256=file_sha256(weights.path),
        bytes=weights.path.stat().st_size,
        revision=snapshot.name if snapshot.parent.name == "snapshots" else None,
        deviation=deviation,
    )
