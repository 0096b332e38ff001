"""Indices on disk: used by other processes, renewed when the file changes, never trusted when damaged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sifa_zoo.video import cache
from sifa_zoo.video.container import find_file
from sifa_zoo.video.load import VideoError, frame_times, load_video, video_info

KINDS = ["long_gop", "mpeg4_b_frames", "packed", "transport_stream", "damaged", "rotated", "gif"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache that is switched on."""
    monkeypatch.setenv("SIFA_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SIFA_ZOO_INDEX", raising=False)
    cache.forget_memory()
    cache._warn_unwritable.cache_clear()
    yield tmp_path / "cache" / "index"
    cache.forget_memory()


@pytest.fixture
def video(tmp_path, videos):
    return shutil.copy(videos["mpeg4_b_frames"], tmp_path / "video.avi")


@pytest.fixture
def built(monkeypatch):
    """The files of which an index was built from scratch."""
    files = []
    build = cache.build_index
    monkeypatch.setattr(cache, "build_index", lambda file: files.append(file) or build(file))
    return files


@pytest.mark.parametrize("name", KINDS)
def test_what_was_learnt_comes_back_from_disk(videos, built, name):
    video_info(videos[name])
    frames = load_video(videos[name])  # damage comes to light here
    info, times = video_info(videos[name]), frame_times(videos[name])
    cache.forget_memory()
    assert cache.is_cached(videos[name])
    assert video_info(videos[name]) == info
    np.testing.assert_array_equal(frame_times(videos[name]), times)
    np.testing.assert_array_equal(load_video(videos[name], [30, 2]), frames[[30, 2]])
    assert len(built) == 1


def test_another_process_decodes_nothing_to_count(video):
    num_frames = video_info(video).num_frames
    code = (
        "from sifa_zoo.video import cache, load, reader\n"
        "cache.build_index = None\n"
        "reader.frames_in_order = None\n"
        f"print(load.video_info({os.fspath(video)!r}).num_frames)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(num_frames)


def test_a_changed_file_is_read_anew(video, videos, built):
    assert video_info(video).num_frames == 40
    shutil.copy(videos["one_frame"], video)
    os.utime(video, ns=(1, 1))
    assert not cache.is_cached(video)
    assert video_info(video).num_frames == 1
    assert len(built) == 2
    os.utime(video, ns=(2, 2))
    assert not cache.is_cached(video)


def test_contents_changed_in_secret_are_found_out(tmp_path, videos):
    path = tmp_path / "video.mp4"
    path.write_bytes(videos["short_gop_mp4"].read_bytes())
    os.utime(path, ns=(1, 1))
    frames = load_video(path)
    data = bytearray(path.read_bytes())
    index = cache.find_index(find_file(path))
    data[index.positions[index.keys[3]] + 60] ^= 0xFF
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(load_video(path, [3]), frames[[3]])
    load_video(path, [36])
    assert not video_info(path).random_access


@pytest.mark.parametrize("change", [lambda data: b"", lambda data: data[:50], lambda data: data[:-3] + b"abc"])
def test_a_damaged_index_is_not_used(video, folder, built, change):
    video_info(video)
    (path,) = (file for file in folder.rglob("*") if file.is_file())
    path.write_bytes(change(path.read_bytes()))
    cache.forget_memory()
    assert not cache.is_cached(video)
    assert video_info(video).num_frames == 40
    assert len(built) == 2
    assert cache.is_cached(video)


def test_an_index_of_another_file_is_not_used(video, videos, folder):
    video_info(videos["one_frame"])
    (other,) = (file for file in folder.rglob("*") if file.is_file())
    path = cache._path(find_file(video))
    path.parent.mkdir(parents=True)
    shutil.copy(other, path)
    assert video_info(video).num_frames == 40


def rewrite_head(path: Path, change: Callable[[dict], None]) -> None:
    head, _, body = zlib.decompress(path.read_bytes()).partition(b"\n")
    head = json.loads(head)
    change(head)
    path.write_bytes(zlib.compress(json.dumps(head).encode() + b"\n" + body))


@pytest.mark.parametrize(
    "change",
    [
        lambda head: head["identity"].__setitem__(0, head["identity"][0] - 1),
        lambda head: head["index"].pop("access"),
        lambda head: head["index"]["decoder"].pop("chroma_siting"),
        lambda head: head["index"]["decoder"].update(speed=1),
        lambda head: head["index"].update(decoder="h264"),
    ],
    ids=["version", "missing_field", "missing_setting", "unknown_setting", "setting_of_another_kind"],
)
def test_an_index_of_another_form_is_not_used(video, folder, built, change):
    video_info(video)
    (path,) = (file for file in folder.rglob("*") if file.is_file())
    rewrite_head(path, lambda head: None)
    assert cache.is_cached(video)
    rewrite_head(path, change)
    cache.forget_memory()
    assert not cache.is_cached(video)
    assert video_info(video).num_frames == 40
    assert len(built) == 2


def test_what_comes_back_from_disk_is_what_was_kept(video, folder):
    video_info(video)
    kept = cache.find_index(find_file(video))
    cache.forget_memory()
    found = cache.find_index(find_file(video))
    assert found is not kept
    for name, value in vars(kept).items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
        assert type(getattr(found, name)) is type(value)


def test_a_folder_that_cannot_be_written_is_told_once(video, videos, folder):
    folder.parent.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match=r"indices of videos are not kept, .*cache/index cannot be written"):
        assert video_info(video).num_frames == 40
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert video_info(videos["long_gop"]).num_frames == 40


def test_switched_off(video, folder, monkeypatch):
    monkeypatch.setenv("SIFA_ZOO_INDEX", "off")
    assert video_info(video).num_frames == 40
    assert not folder.exists()
    assert not cache.is_cached(video)


def test_forget(video, built):
    video_info(video)
    cache.forget(video)
    assert not cache.is_cached(video)
    cache.forget(video)
    video_info(video)
    assert len(built) == 2


def test_a_missing_file_is_an_error(tmp_path):
    for ask in (cache.is_cached, cache.forget):
        with pytest.raises(VideoError, match="no such file"):
            ask(tmp_path / "missing.mp4")


def test_files_that_fail_are_not_kept(not_videos, folder):
    for name in ("text", "audio", "without_frames"):
        with pytest.raises(VideoError):
            video_info(not_videos[name])
    assert not folder.exists()


def test_many_writers_at_once(video, folder):
    code = (
        "import sys\n"
        "from sifa_zoo.video import cache, load\n"
        "for _ in range(30):\n"
        f"    load.video_info({os.fspath(video)!r})\n"
        "    cache.forget_memory()\n"
        f"    cache.save_index(cache.find_file({os.fspath(video)!r}), "
        f"cache.find_index(cache.find_file({os.fspath(video)!r})))\n"
    )
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: subprocess.run([sys.executable, "-c", code], check=False), range(3)))
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert [file.name.startswith(".") for file in folder.rglob("*") if file.is_file()] == [False]
    assert cache.is_cached(video)
