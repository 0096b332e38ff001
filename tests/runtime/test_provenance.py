from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import sifa_zoo
from sifa_zoo.datasets.formats import read_videos
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.runtime.provenance import data_fingerprint, git_commit, versions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train/blue/0.mp4", "train/red/0.mp4", "val/blue/1.mp4", "val/red/1.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).write_bytes(b"1234")
    return tmp_path / "videos"


def fingerprint(folder: Path) -> str:
    return data_fingerprint(read_videos(folder, "train"), read_videos(folder, "val"), root=folder)


def test_a_fingerprint_is_of_names_sizes_and_labels(folder: Path, tmp_path: Path) -> None:
    first = fingerprint(folder)
    assert len(first) == 16
    assert fingerprint(Path(shutil.copytree(folder, tmp_path / "copy"))) == first
    (folder / "train" / "red" / "0.mp4").write_bytes(b"12345")
    resized = fingerprint(folder)
    (folder / "train" / "red" / "0.mp4").rename(folder / "train" / "red" / "9.mp4")
    renamed = fingerprint(folder)
    (folder / "train" / "red" / "9.mp4").rename(folder / "train" / "blue" / "9.mp4")
    (folder / "train" / "blue" / "0.mp4").rename(folder / "train" / "red" / "0.mp4")
    assert len({first, resized, renamed, fingerprint(folder)}) == 4


def test_order_and_missing_files_do_not_matter(folder: Path) -> None:
    paths = [folder / "train" / "red" / "0.mp4", folder / "nowhere.mp4"]
    one = VideoList(paths, [0, 1], ["a", "b"])
    other = VideoList(paths[::-1], [1, 0], ["a", "b"])
    several = VideoList(paths, np.array([[True, True], [False, True]]), ["a", "b"])
    assert data_fingerprint(one, root=folder) == data_fingerprint(other, root=folder)
    assert data_fingerprint(several, root=folder) != data_fingerprint(one, root=folder)


def test_versions() -> None:
    expected = {"sifa_zoo": sifa_zoo.__version__, "torch": torch.__version__, "timm": timm.__version__}
    assert versions() == {**expected, "python": platform.python_version()}


def test_commit_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sifa_zoo, "__file__", str(tmp_path / "sifa_zoo" / "__init__.py"))
    assert git_commit() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert git_commit() == head
    (tmp_path / "file").write_text("2")
    assert git_commit() == f"{head}-dirty"
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None
