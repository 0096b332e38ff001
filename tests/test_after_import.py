"""Our module follows another package, whose import is otherwise what it would be without us."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sifa_zoo.after_import import after_import

SLOW = "import time\ntime.sleep(0.2)\ndone = True\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules `theirs`, which takes its time, and `ours`, which notes whether `theirs` was done."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text(SLOW)
    (tmp_path / "theirs" / "part.py").write_text("")
    (tmp_path / "ours.py").write_text("import theirs\nsaw_it_done = theirs.done\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in ("theirs", "theirs.part", "ours"):
        sys.modules.pop(name, None)


def test_a_package_that_is_there_is_followed_at_once(place: Path) -> None:
    finders = list(sys.meta_path)
    importlib.import_module("theirs")
    after_import("theirs", "ours")
    assert sys.modules["ours"].saw_it_done
    assert sys.meta_path == finders


@pytest.mark.parametrize("name", ["theirs", "theirs.part"])
def test_a_package_that_comes_later_is_followed_once(place: Path, name: str) -> None:
    finders = list(sys.meta_path)
    after_import("theirs", "ours")
    assert "ours" not in sys.modules
    importlib.import_module(name)
    assert sys.modules["ours"].saw_it_done
    assert sys.meta_path == finders
    del sys.modules["ours"]
    theirs = importlib.reload(sys.modules["theirs"])
    assert "ours" not in sys.modules
    assert type(theirs.__loader__) is type(theirs.__spec__.loader) is importlib.machinery.SourceFileLoader


def test_looking_for_the_package_imports_nothing(place: Path) -> None:
    after_import("theirs", "ours")
    spec = importlib.util.find_spec("theirs")
    assert spec is not None
    assert spec.origin == spec.loader.get_filename("theirs") == str(place / "theirs" / "__init__.py")
    assert spec.submodule_search_locations == [str(place / "theirs")]
    assert not {"theirs", "ours"} & sys.modules.keys()
    importlib.import_module("theirs")
    assert sys.modules["ours"].saw_it_done


def test_nothing_happens_for_a_package_that_is_not_installed(place: Path) -> None:
    after_import("nobody_has_this", "ours")
    assert importlib.util.find_spec("nobody_has_this") is None
    with pytest.raises(ModuleNotFoundError, match="No module named 'nobody_has_this'"):
        importlib.import_module("nobody_has_this")
    assert "ours" not in sys.modules


def test_an_error_of_ours_is_logged_and_theirs_goes_on(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    (place / "ours.py").write_text("raise RuntimeError('broken')\n")
    after_import("theirs", "ours")
    assert importlib.import_module("theirs").done
    (record,) = caplog.records
    assert record.getMessage() == "ours could not be imported after theirs: RuntimeError('broken')"


def test_an_error_of_theirs_is_theirs_and_the_next_import_is_followed(place: Path) -> None:
    (place / "theirs" / "__init__.py").write_text("raise RuntimeError('broken')\n")
    after_import("theirs", "ours")
    with pytest.raises(RuntimeError, match="broken"):
        importlib.import_module("theirs")
    assert "ours" not in sys.modules
    (place / "theirs" / "__init__.py").write_text(SLOW)
    importlib.invalidate_caches()
    importlib.import_module("theirs")
    assert sys.modules["ours"].saw_it_done


def test_many_threads_import_it_at_once(place: Path) -> None:
    after_import("theirs", "ours")
    seen: list[bool] = []
    names = ["theirs", "theirs.part", "ours"] * 4
    threads = [
        threading.Thread(target=lambda name=name: seen.append(bool(importlib.import_module(name)))) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [True] * len(names)
    assert sys.modules["ours"].saw_it_done


def test_a_mere_folder_of_that_name_is_not_the_package(place: Path) -> None:
    (place / "theirs" / "__init__.py").unlink()
    after_import("theirs", "ours")
    importlib.import_module("theirs.part")
    assert "ours" not in sys.modules


def test_a_package_in_an_archive_is_followed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(place / "archive.zip", "w") as archive:
        archive.writestr("theirs/__init__.py", SLOW)
        archive.writestr("theirs/part.py", "")
    monkeypatch.syspath_prepend(place / "archive.zip")
    after_import("theirs", "ours")
    importlib.import_module("theirs.part")
    assert ".zip" in str(sys.modules["theirs"].__file__)
    assert sys.modules["ours"].saw_it_done


def test_two_may_wait_for_the_same_package(place: Path) -> None:
    (place / "ours_too.py").write_text("")
    finders = list(sys.meta_path)
    after_import("theirs", "ours")
    after_import("theirs", "ours_too")
    importlib.import_module("theirs")
    assert {"ours", "ours_too"} <= sys.modules.keys()
    assert sys.meta_path == finders
    del sys.modules["ours_too"]
