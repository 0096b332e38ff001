"""Weights by name: the manifest, the Hugging Face Hub, the files that ship with the package.

In: a name, a path or a model to fill. Out: a checked file and what it says about itself, or a `WeightsError` that says
why there is none. Uses models.
"""

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """The modules besides the manifest, which alone is there without torch: imported when they are first used."""
    if name in ("contents", "finding", "hub", "info", "loading", "model_config", "other_files", "stated_hash"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
