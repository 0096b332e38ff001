"""Follow the import of another package by one of our modules, without importing the package for it."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_logger = logging.getLogger(__name__)


def after_import(package: str, ours: str) -> None:
    """Import our module now if the package is there, else right after somebody imports the package."""
    if sys.modules.get(package):
        importlib.import_module(ours)
    else:
        sys.meta_path.insert(0, _Finder(package, ours))


class _Finder(MetaPathFinder):
    """Finds one package as the finders behind this one do, until it has been imported."""

    def __init__(self, package: str, ours: str) -> None:
        self.package, self.ours = package, ours

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        finders = list(sys.meta_path)
        if name != self.package or self not in finders:
            return None
        for finder in finders[finders.index(self) + 1 :]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self)
                return spec
        return None

    def follow(self) -> None:
        """Import our module, and have no part in further imports."""
        sys.meta_path = [finder for finder in sys.meta_path if finder is not self]  # other threads may read the old one
        try:
            importlib.import_module(self.ours)
        except Exception as error:  # no error of ours may break the import of somebody else's package
            _logger.warning("%s could not be imported after %s: %r", self.ours, self.package, error)


class _Loader(Loader):
    """The package's own loader, for which it makes room before the package runs."""

    def __init__(self, own: Any, finder: _Finder) -> None:
        self._own, self._finder = own, finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._own.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._own
        if module.__spec__ is not None:
            module.__spec__.loader = self._own
        self._own.exec_module(module)
        self._finder.follow()
