from __future__ import annotations

import csv
import errno
import os
from pathlib import Path

import pytest

from sifa_zoo.files import check_folder, csv_bytes, is_temporary, write_files


def test_write_files_replaces_all(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"old")
    write_files({a: b"new", b: b"also"})
    assert (a.read_bytes(), b.read_bytes()) == (b"new", b"also")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_full_disk_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"old")
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(
        OSError, match=r"no space left on the disk while saving .*b; what was saved before is untouched"
    ):
        write_files({a: b"new", b: b"also"})
    assert a.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_dev_full_is_reported(tmp_path: Path) -> None:
    os.symlink("/dev/full", tmp_path / ".a.tmp")
    with pytest.raises(OSError, match="no space left"):
        write_files({tmp_path / "a": b"new"})
    assert not os.listdir(tmp_path)


def test_what_a_kill_leaves_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.extend(tmp_path.iterdir()))
    write_files({tmp_path / "a": b""})
    assert [is_temporary(path) for path in (*seen, tmp_path / "a")] == [True, False]


def test_rows_with_different_keys(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(csv_bytes([{"a": 1}, {"a": 2, "b": "x, y"}]))
    with open(tmp_path / "t.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": ""}, {"a": "2", "b": "x, y"}]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    check_folder(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file, not a folder"):
        check_folder(tmp_path / "file" / "folder")
