from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sifa_zoo.config import ClipConfig, WeightsInfo
from sifa_zoo.engine.checkpoint import clip_config, load_run, read_info
from sifa_zoo.files import write_files


def test_weights_say_what_they_are(run_folder: Path) -> None:
    info = read_info(run_folder)
    assert info is not None
    assert (info.arch, info.class_names) == ("sifa_net_nano", ("blue", "red"))
    assert info.clip == ClipConfig(num_frames=4, frame_stride=1, img_size=32)
    assert info.metrics.keys() == {"val_loss", "val_top1", "val_top5", "val_videos", "val_expected"}
    assert read_info(run_folder / "last.safetensors").epoch == 3  # type: ignore[union-attr]


def test_info_survives_json_and_later_keys() -> None:
    info = WeightsInfo(arch="a", class_names=("x", "y"), clip=ClipConfig(mean=(0.1, 0.2, 0.3)), version="1")
    assert WeightsInfo.from_json(info.to_json()) == info
    assert WeightsInfo.from_json(info.to_json().replace("{", '{"later": 1, ', 1)) == info


def test_load_run_gives_the_trained_model(run_folder: Path) -> None:
    model = load_run(run_folder)
    assert not model.training
    assert model.pretrained_cfg["label_names"] == ("blue", "red")
    assert model.pretrained_cfg["input_size"] == (3, 32, 32)
    assert clip_config(model) == ClipConfig(num_frames=4, frame_stride=1, img_size=32)
    stored = load_file(run_folder / "best.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored[name]), name


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, "no such run folder or weights file"),
        (lambda path: path.mkdir(), r"holds no best\.safetensors"),
        (lambda path: path.write_bytes(b"not weights"), "not a safetensors file"),
        (lambda path: save_file({"a": torch.zeros(1)}, path), "not written by `sifa-zoo finetune`"),
    ],
)
def test_load_run_refuses(tmp_path: Path, prepare: object, message: str) -> None:
    prepare(tmp_path / "run")  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        load_run(tmp_path / "run")


def test_load_run_refuses_a_missing_key(run_folder: Path, tmp_path: Path) -> None:
    with safe_open(run_folder / "best.safetensors", framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(run_folder / "best.safetensors")
    tensors.pop("layer1.0.conv1.weight")
    save_file(tensors, tmp_path / "broken.safetensors", metadata)
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.weight"):
        load_run(tmp_path / "broken.safetensors")


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


def test_run_folder_can_be_moved(run_folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run_folder, tmp_path / "elsewhere")
    assert load_run(moved / "last.safetensors").num_classes == 2
